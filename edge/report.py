"""The agent's view of itself: the document that `fleet edge status` shows, made without touching the disk."""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from edge.disk import journal_figures
from edge.host import EdgeHost
from edge.logs import RecentErrors
from edge.records import JournalError
from edge.settings import EdgeSettings
from edge.status import resident_bytes
from edge.watchdog import Watchdog
from fleet.clock import Clock

NOT_INSTALLED: Final = "from its folder"
FIGURES_EVERY_S: Final = 1.0
JOURNAL_S_MAX: Final = 1.0


def version() -> str:
    """Of this installation, from the name of its folder: `importlib.metadata` would load a parser of mails."""
    for place in sys.path:
        for found in Path(place or ".").glob("gaoxin_fleet-*.dist-info"):
            return found.name.removeprefix("gaoxin_fleet-").removesuffix(".dist-info")
    return NOT_INSTALLED


class Report:
    """Made once at the start; `document` as often as somebody asks."""

    def __init__(
        self, settings: EdgeSettings, host: EdgeHost, watchdog: Watchdog, recent: RecentErrors, clock: Clock
    ) -> None:
        self._settings = settings
        self._host = host
        self._watchdog = watchdog
        self._recent = recent
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._version = version()
        self._figures: dict[str, Any] | None = None
        self._asked_s = 0.0

    def line(self) -> str:
        """One line for the service manager."""
        agent = self._host.agents.get(self._settings.device_id)
        if agent is None:
            return "starting"
        link = "connected" if agent.connected else "not connected"
        return f"{self._settings.device_id}: {link}, line {'open' if agent.vitals.is_open else 'closed'}"

    async def document(self) -> dict[str, Any]:
        """Times are seconds before now, unless they say otherwise. The journal is asked at most once a second."""
        if self._figures is None or self._clock.monotonic_s() - self._asked_s > FIGURES_EVERY_S:
            self._asked_s = self._clock.monotonic_s()
            self._figures = await self._ask_journal()
        return self._live() | {"waiting": self._figures}

    async def _ask_journal(self) -> dict[str, Any] | None:
        device_id = self._settings.device_id
        try:
            async with asyncio.timeout(JOURNAL_S_MAX):
                return await self._host.journal.read(
                    lambda store: store.look(lambda found: journal_figures(found, device_id))
                )
        except (TimeoutError, JournalError, RuntimeError):  # stuck, damaged or being reopened
            return None

    def _live(self) -> dict[str, Any]:
        journal = self._host.journal
        result: dict[str, Any] = {
            "version": self._version,
            "device_id": self._settings.device_id,
            "kind": self._settings.kind,
            "running_for_s": self._ago(self._started_s),
            "memory_mb": round(resident_bytes() / 1e6, 1),
            "stuck": self._watchdog.stuck,
            "journal": {
                "journalled": journal.journalled,
                "refused": journal.refused,
                "commits": journal.commits,
                "reserve_rows": len(journal.reserved_rows),
                "reserve_uses": journal.reserved,
            },
            "problems": self._recent.total,
            "recent_problems": self._recent.lines(),
        }
        agent = self._host.agents.get(self._settings.device_id)
        if agent is None:
            return result | {"link": None, "clock": None, "line": None, "counts": {}}
        vitals = agent.vitals
        return result | {
            "link": {
                "connected": agent.connected,
                "welcomed_for_s": self._ago(agent.welcomed_s) if agent.connected else None,
                "last_welcome_s": self._ago(agent.welcomed_s),
                "error": agent.link_error,
                "broker": f"{self._settings.broker.host}:{self._settings.broker.port}",
            },
            "clock": {"trusted": agent.clock_is_trusted, "off_by_s": agent.clock_off_by_s},
            "line": {
                "address": self._settings.transport,
                "open": vitals.is_open,
                "open_for_s": self._ago(vitals.opened_s) if vitals.is_open else None,
                "heard_s": self._ago(vitals.heard_s),
                "error": vitals.error,
            },
            "counts": dict(sorted(agent.statistics().items())),
        }

    def _ago(self, moment_s: float | None) -> float | None:
        return None if moment_s is None else round(self._clock.monotonic_s() - moment_s, 1)
