"""What feeds the history: the tables into the series where dispatch runs, and every process about itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY

from cloud.adapters.sql.patience import endless
from cloud.bootstrap.parts import Parts
from cloud.data_directory import stable_name
from cloud.drain_rows import Quarantine
from cloud.history.feed import HistoryFeed
from cloud.history.platform import Platform
from cloud.history.samples import SAMPLERS, Samples
from cloud.history.sending import Sending
from cloud.ingest.leases import Leases
from cloud.ports import AsyncWork
from cloud.supervision.service import SupervisionService
from cloud.timeseries.drain import DrainState
from cloud.watch import Condition
from fleet import series
from fleet.clock import MILLISECONDS_PER_SECOND

_log = structlog.get_logger(__name__)

AGAIN_S: Final = 30.0
"""Real seconds after an error that nobody foresaw."""


def start_history(parts: Parts, group: asyncio.TaskGroup) -> None:
    """All tasks in `group`; call it when every other part has said what it knows of `platform`."""
    settings, around = parts.settings, parts.around
    if settings.series == "off":
        return
    delivers = "dispatch" in parts.roles
    if "api" in parts.roles:
        parts.platform.append(lambda: _people(parts))
    if delivers:
        _start_feed(parts, group)
    platform = Platform(
        process=process_name(parts), clock=around.clock, registry=REGISTRY, data_directory=settings.data_directory,
        store=parts.series, database=parts.database if delivers else None, extras=parts.platform,
    )  # fmt: skip
    group.create_task(kept_up(platform.run, "platform samples"))
    parts.watch.numbers.single["fleet_samples_lost"] = "Samples given up at their bound", lambda: platform.lost


async def kept_up(work: AsyncWork, name: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Run `work` again after whatever ends it: boards are never a reason for the process of the calls to end."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  # whatever it is: said to the log, and nobody else suffers
            _log.exception("the history stands still for a moment", part=name)
        await sleep(AGAIN_S)


def process_name(parts: Parts) -> str:
    """The tag of this process in `platform`: its role, and its number if it has one."""
    role = parts.roles[0] if len(parts.roles) == 1 else "all"
    assert role in series.ROLES
    return f"{role}-{parts.settings.instance}" if parts.settings.instance else role


def _start_feed(parts: Parts, group: asyncio.TaskGroup) -> None:
    around, database = parts.around, parts.database
    owner = "history:" + stable_name(parts.settings.data_directory / "history-id", around.new_id)
    sending = Sending(
        parts.series, quarantine=Quarantine(database), received_at_ms=around.clock.now_ms, randomness=around.randomness
    )
    feed = HistoryFeed(database, sending, lease=lambda: Leases(database, owner, around.real_now_ms), clock=around.clock)
    samples = Samples(database, around.clock, SAMPLERS, mine=lambda: feed.holds_lease)
    group.create_task(endless(kept_up(feed.run, "history feed")))
    group.create_task(endless(kept_up(samples.run, "fleet samples")))

    def fields() -> Mapping[str, Any]:
        return {
            "history_state": sending.state.value if feed.holds_lease else "standby",
            "history_points_total": sending.statistics.points_written,
            "history_lag_ms": feed.lag_ms if feed.holds_lease else None,
        }

    parts.platform.append(fields)
    single = parts.watch.numbers.single
    single["fleet_history_lag_ms"] = "Age of the oldest step not in the series yet", lambda: feed.lag_ms
    single["fleet_history_samples_lost"] = "Samples of the fleet given up at their bound", lambda: samples.lost
    if "ingest" not in parts.roles:  # beside a drain that says the same of the same store
        parts.watch.conditions.append(
            Condition(
                "series", lambda: sending.state is DrainState.NO_ACCESS,
                "时序库拒绝访问", "The time series refuses access",
            )
        )  # fmt: skip


def _people(parts: Parts) -> Mapping[str, Any]:
    """Open pages, and what the watchdog said last of the way of the calls."""
    age_s = parts.services.get(SupervisionService).chain().whole_before_s
    age_ms = None if age_s is None else age_s * MILLISECONDS_PER_SECOND
    return {"clients": parts.changes.pages, "synthetic_age_ms": age_ms}
