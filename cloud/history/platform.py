"""How this process fares, every ten real seconds: the one place that samples metrics and queues for the boards.

Unlike steps these samples are not worth a row in SQL, which may be what is in trouble: they wait in memory, at most
`WAITING_MAX` of them (an hour), and what gives way to newer ones is counted (`samples_lost_total`).
"""

import asyncio
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloud.history.steps import point
from cloud.ports import Database, SeriesError, SeriesSink
from cloud.tables import outbox
from cloud.timeseries.points import Point
from fleet import series
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

_log = structlog.get_logger(__name__)

SAMPLE_S: Final = 10.0
WAITING_MAX: Final = 360
SQL_S_MAX: Final = 2.0
"""A database that does not answer within so long leaves its fields out; the sample is taken all the same."""

Extra = Callable[[], Mapping[str, Any]]
"""Fields of `platform` that only some roles know; None leaves one out."""

_COUNTERS: Final = {
    "accepted_total": "fleet_messages_total",
    "quarantined_total": "fleet_quarantined_total",
    "duplicates_total": "fleet_duplicates_total",
    "evicted_total": "fleet_evicted_total",
    "commits_total": "fleet_commits_total",
    "sql_conflicts_total": "fleet_sql_conflicts_total",
    "sql_retries_total": "fleet_sql_retries_total",
    "outbox_delivered_total": "fleet_outbox_delivered_total",
    "outbox_failed_total": "fleet_outbox_attempts_failed_total",
    "outbox_given_up_total": "fleet_outbox_given_up_total",
    "press_to_notified_total": "fleet_press_to_notified_seconds_count",
    "resident_bytes": "process_resident_memory_bytes",
    "cpu_s_total": "process_cpu_seconds_total",
}
_HOLES: Final = "fleet_holes_total"
_COMMIT_SECONDS: Final = "fleet_commit_seconds_total"
_NOTIFIED: Final = "fleet_press_to_notified_seconds"
_HTTP_REQUESTS: Final = "fleet_http_requests_total"
_HTTP_SECONDS: Final = "fleet_http_request_seconds"
_NAMES: Final = sorted({*_COUNTERS.values(), _HOLES, _COMMIT_SECONDS, _NOTIFIED, f"{_NOTIFIED}_bucket", _HTTP_REQUESTS,
                        _HTTP_SECONDS, f"{_HTTP_SECONDS}_bucket", f"{_HTTP_SECONDS}_sum",
                        f"{_HTTP_SECONDS}_count"})  # fmt: skip


@dataclass(slots=True)
class _Totals:
    """Metrics of one moment, summed over their labels."""

    sums: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    http_by_class: dict[str, float] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        name, value = sample.name, sample.value
        self.sums[name] = self.sums.get(name, 0.0) + value
        if name.endswith("_bucket"):
            of = self.buckets.setdefault(name.removesuffix("_bucket"), {})
            end = float(sample.labels["le"])
            of[end] = of.get(end, 0.0) + value
        elif name == _HTTP_REQUESTS:
            hundred = sample.labels["status"][:1]
            self.http_by_class[hundred] = self.http_by_class.get(hundred, 0.0) + value


@dataclass(slots=True)
class Platform:
    """One per process.

    Args:
        process: the tag: the role, with `FLEET_INSTANCE` if it is set.
        clock: business time of the points, real seconds between them.
        registry: where the metrics are.
        data_directory: whose disk is looked at.
        store: the series.
        database: asked for the outbox where this process delivers it; None elsewhere.
        sleep: waits real seconds; tests give their own.
    """

    process: str
    clock: Clock
    registry: CollectorRegistry
    data_directory: Path
    store: SeriesSink
    database: Database | None = None
    extras: list[Extra] = field(default_factory=list)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    lost: int = 0
    waiting: deque[Point] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _before: _Totals | None = None
    _began_s: float | None = None
    _is_away: bool = False

    async def run(self) -> None:
        """Sample and write until cancelled; a store that is away delays no sample."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample())
            group.create_task(self._write())

    async def _sample(self) -> None:
        due_s = self.clock.monotonic_s()
        while True:
            late_s = max(0.0, self.clock.monotonic_s() - due_s)
            await self.take(round(late_s * MILLISECONDS_PER_SECOND))
            due_s = max(due_s + SAMPLE_S, self.clock.monotonic_s())
            await self.sleep(due_s - self.clock.monotonic_s())

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            retry_after_s = await self.write()
            if retry_after_s:
                await self.sleep(min(retry_after_s, SAMPLE_S))
                self._news.set()

    async def take(self, late_ms: int = 0) -> Point:
        """Take one sample and queue it."""
        now_s = self.clock.monotonic_s()
        began_s = self._began_s = now_s if self._began_s is None else self._began_s
        fields = {"uptime_s": now_s - began_s, "loop_late_ms": late_ms, **self._metrics(), **self._disk()}
        if self.database is not None:
            fields |= await self._outbox(self.database)
        for extra in self.extras:
            fields |= extra()
        fields["samples_lost_total"] = self.lost
        sample = point(series.PLATFORM, 0, self.clock.now_ms(), {"process": self.process}, fields)
        if len(self.waiting) >= WAITING_MAX:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append(sample)
        self._news.set()
        return sample

    async def write(self) -> float:
        """Write what waits; real seconds after which to try again, 0.0 if nothing is left."""
        points = list(self.waiting)
        if not points:
            return 0.0
        try:
            await self.store.write(points)
        except SeriesError as error:
            if not self._is_away:
                _log.warning("samples wait for the series", error=str(error), waiting=len(points))
            self._is_away = True
            # Points it will never take: one by one, so that a bad one takes no other with it.
            return error.retry_after_s if error.retry_after_s is not None else await self._write_singly(points)
        self._written(points)
        return 0.0

    async def _write_singly(self, points: list[Point]) -> float:
        for one in points:
            try:
                await self.store.write([one])
            except SeriesError as error:
                if error.retry_after_s is not None:
                    return error.retry_after_s
                self.lost += 1
            self._written([one])
        return 0.0

    def _written(self, points: list[Point]) -> None:
        done = set(map(id, points))
        self.waiting = deque(one for one in self.waiting if id(one) not in done)
        self._is_away = False

    def _disk(self) -> dict[str, Any]:
        try:
            usage = shutil.disk_usage(self.data_directory)
        except OSError:
            return {"disk_free_bytes": 0, "disk_free_percent": 0.0}  # gone, or its disk is
        return {"disk_free_bytes": usage.free, "disk_free_percent": round(100.0 * usage.free / usage.total, 3)}

    def _metrics(self) -> dict[str, Any]:
        before, now = self._before, _totals(self.registry)
        self._before = now
        fields: dict[str, Any] = {name: now.sums.get(metric, 0.0) for name, metric in _COUNTERS.items()}
        set_aside = (fields["quarantined_total"], fields["duplicates_total"], now.sums.get(_HOLES, 0.0))
        fields["messages_total"] = fields["accepted_total"] + sum(set_aside)
        fields["press_to_notified_ms_p99"] = _quantile_ms(now.buckets.get(_NOTIFIED, {}), 0.99)
        if _HTTP_REQUESTS in now.sums:
            fields["api_requests_total"] = now.sums[_HTTP_REQUESTS]
            fields["api_refused_total"] = now.http_by_class.get("4", 0.0)
            fields["api_errors_total"] = now.http_by_class.get("5", 0.0)
        if before is not None:
            fields["commit_ms_mean"] = _mean_ms(before, now, _COMMIT_SECONDS, "fleet_commits_total")
            fields["api_ms_mean"] = _mean_ms(before, now, f"{_HTTP_SECONDS}_sum", f"{_HTTP_SECONDS}_count")
            earlier = before.buckets.get(_HTTP_SECONDS, {})
            late = {end: count - earlier.get(end, 0.0) for end, count in now.buckets.get(_HTTP_SECONDS, {}).items()}
            fields["api_ms_p95"] = _quantile_ms(late, 0.95)
        return fields

    async def _outbox(self, database: Database) -> dict[str, Any]:
        now_ms = self.clock.now_ms()
        try:
            async with asyncio.timeout(SQL_S_MAX):
                return await database.read(lambda tx: outbox_fields(tx, now_ms))
        except (TimeoutError, SQLAlchemyError):
            return {}


def outbox_fields(tx: Connection, now_ms: int) -> dict[str, int]:
    """How many notifications wait, and for how long the oldest that is due."""
    waiting = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None)
    total, urgent = tx.execute(
        select(func.count(), func.count().filter(outbox.c.urgent > 0)).select_from(outbox).where(waiting)
    ).one()
    oldest = tx.scalar(select(func.min(outbox.c.created_at)).where(waiting, outbox.c.available_at <= now_ms))
    oldest_ms = 0 if oldest is None else max(0, now_ms - oldest)
    return {"outbox_waiting": total, "outbox_urgent_waiting": urgent, "outbox_oldest_ms": oldest_ms}


def _totals(registry: CollectorRegistry) -> _Totals:
    """Only the metrics we want: others count every device when they are looked at."""
    totals = _Totals()
    for metric in registry.restricted_registry(_NAMES).collect():
        for sample in metric.samples:
            totals.add(sample)
    return totals


def _mean_ms(before: _Totals, now: _Totals, seconds: str, count: str) -> float | None:
    done = now.sums.get(count, 0.0) - before.sums.get(count, 0.0)
    if done <= 0:
        return None
    return round(1000 * (now.sums.get(seconds, 0.0) - before.sums.get(seconds, 0.0)) / done, 3)


def _quantile_ms(buckets: Mapping[float, float], level: float) -> float | None:
    """The upper end of the bucket in which the quantile lies; beyond the last one, that one's end. None without any."""
    ends: Iterable[float] = sorted(buckets)
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    finite = [end for end in ends if end != float("inf")]
    found = next((end for end in finite if buckets[end] >= level * total), finite[-1])
    return round(found * 1000, 3)
