"""The watchdog's rounds: press, wait for it to come back, judge, tell, clear."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from cli.watchdog.room import Press, SyntheticRoom
from cli.watchdog.voice import Voice
from cloud.supervision.chain import DEADLINE_S, INTERVAL_S, Chain, Delivery, Evidence, Stage

_log = structlog.get_logger(__name__)

LOOK_S_MAX: Final = 3.0
"""Real seconds for asking database and cloud about a press that did not come back."""
PING_TIMEOUT_S: Final = 5.0

LookAtDatabase = Callable[[str], Awaitable[tuple[str, Delivery | None]]]
"""Event id → (what is wrong with the database or empty, the press's outbox row)."""
LookAtCloud = Callable[[], Awaitable[str]]
"""What is wrong with the cloud's process, empty where it answers that all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Real seconds."""

    interval_s: float = INTERVAL_S
    deadline_s: float = DEADLINE_S


class Watchdog:
    """`run` until cancelled."""

    def __init__(
        self, room: SyntheticRoom, voice: Voice, *, look_at_database: LookAtDatabase, look_at_cloud: LookAtCloud,
        deadman_url: str = "", rhythm: Rhythm | None = None,
    ) -> None:  # fmt: skip
        """`deadman_url` is asked for after each whole round, and never else."""
        self.chain = Chain(time.monotonic())
        self.registry = CollectorRegistry()
        self._room = room
        self._voice = voice
        self._look_at_database = look_at_database
        self._look_at_cloud = look_at_cloud
        self._deadman_url = deadman_url
        self._rhythm = rhythm or Rhythm()
        self._whole = Gauge("fleet_chain_whole", "1 while a synthetic call comes back", registry=self.registry)
        self._dead = Gauge("fleet_chain_stage_dead", "1 for the dead stage", ["stage"], registry=self.registry)
        self._took = Gauge("fleet_chain_round_trip_seconds", "Of the latest whole round", registry=self.registry)
        self._rounds = Counter("fleet_chain_rounds", "Synthetic calls", ["outcome"], registry=self.registry)
        self._pings = Counter(
            "fleet_chain_deadman_pings", "Of the dead man's switch", ["outcome"], registry=self.registry
        )

    async def run(self) -> None:
        """Rounds beside the connection and the announcements."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._room.run())
            group.create_task(self._voice.run())
            group.create_task(self._watch(group))

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        while True:
            began_s = time.monotonic()
            found = await self.round()
            announcement = self.chain.took(found, time.monotonic())
            self._measure(found)
            if announcement is not None:
                log = _log.error if announcement.stage else _log.warning
                log("chain", **announcement.document())
                self._voice.say(announcement)
            if found.handed_back and self._deadman_url:
                group.create_task(self._ping())
            await asyncio.sleep(max(0.0, began_s + self._rhythm.interval_s - time.monotonic()))

    async def round(self) -> Evidence:
        """One press, until it came back or the deadline is over."""
        press = self._room.press()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rhythm.deadline_s):
                await press.handed_back.wait()
        took_s = time.monotonic() - press.began_s
        back = press.handed_back.is_set()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                if back:
                    await press.acknowledged.wait()
        found = await self._evidence(press, took_s, back=back)
        self._room.clear(press)
        return found

    async def _evidence(self, press: Press, took_s: float, *, back: bool) -> Evidence:
        known = {"published": press.published, "acknowledged": press.acknowledged.is_set(), "took_s": took_s}
        if back:
            return Evidence(handed_back=True, **known)  # type: ignore[arg-type]
        database, delivery = "", None
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                database, delivery = await self._look_at_database(press.event_id)
        except TimeoutError:
            database = f"no answer within {LOOK_S_MAX:.0f} s"
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                cloud = await self._look_at_cloud()
        except TimeoutError:
            cloud = "the cloud's process does not answer"
        # It may have come back while we looked: late is late, and the next round shows whether it was a moment.
        return Evidence(
            handed_back=False, link=self._room.trouble, database=database, cloud=cloud, delivery=delivery, **known,  # type: ignore[arg-type]
        )  # fmt: skip

    def _measure(self, found: Evidence) -> None:
        verdict = self.chain.verdict
        assert verdict is not None
        self._whole.set(verdict.stage is None)
        for stage in Stage:
            self._dead.labels(stage.value).set(verdict.stage is stage)
        self._rounds.labels(verdict.stage.value if verdict.stage else "whole").inc()
        if found.handed_back:
            self._took.set(found.took_s)

    async def _ping(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PING_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._deadman_url) as answer:
                outcome = "ok" if answer.status < 400 else "refused"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome = "failed"
            _log.warning("the dead man's switch did not answer", error=str(error))
        self._pings.labels(outcome).inc()

    # --- where deliveries come back ------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """`POST /delivered`, and what the status page and a scraper ask for."""

        async def delivered(request: web.Request) -> web.Response:
            body: Any = await request.json()
            self._room.delivered(str(body.get("event_id", "")))
            return web.Response(status=204)

        async def status(_request: web.Request) -> web.Response:
            return web.json_response(self.chain.document(time.monotonic()))

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(self.registry), content_type="text/plain")

        application = web.Application(client_max_size=16_384)
        application.router.add_post("/delivered", delivered)
        application.router.add_get("/status", status)
        application.router.add_get("/metrics", metrics)
        return application
