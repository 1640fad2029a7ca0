"""Follows the SQL tables into the series (ADR 0027): one process at a time, repeatably, holding nobody up.

A round: read what is final and not followed yet (`horizon`), make points of it, commit position and points together
(`history_mark`), write the points, forget them. A crash leaves either nothing, or points that are written again,
exactly as they were: the same points change nothing. Commits are short and touch our own tables only; an outage of the
series stops the rounds and nothing else, and the tables keep what they hold.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import Connection, Row, delete, select, update

from cloud.dispatch.rows import insert_into
from cloud.history.horizon import Horizon
from cloud.history.sending import Sending
from cloud.history.steps import SOURCES, Source, decode_points, encode_points, first_position, oldest_waiting
from cloud.ingest.leases import LeaseLostError
from cloud.ports import Database
from cloud.tables import history_mark, history_sample
from cloud.timeseries.points import NANOSECONDS_PER_MILLISECOND, Point
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.milestones import reached
from fleet.topics import SHARD_COUNT

_log = structlog.get_logger(__name__)

HISTORY_SHARD: Final = SHARD_COUNT
"""Number of the lease on the feed, beyond those of the devices' shards."""
POLL_S: Final = 2.0
"""Real seconds between looks at the tables."""
BATCH_ROWS: Final = 500
FIRST_DAYS: Final = 30
"""How far back a table is followed that never was: older points would be beyond the raw retention (`fleet.series`)."""
_DAY_MS: Final = 86_400 * MILLISECONDS_PER_SECOND

_c = history_mark.c


class Lease(Protocol):
    """What keeps the feed one; `cloud.ingest.leases.Leases`."""

    async def take(self, shards: range) -> bool: ...
    async def keep(self) -> None: ...
    def check(self, tx: Connection) -> None: ...


@dataclass(slots=True)
class _Mark:
    position: int
    pending: bytes | None


@dataclass(slots=True)
class FeedStatistics:
    """Counters since the start."""

    rows: int = 0
    batches: int = 0
    repeated: int = 0
    """Batches that a crash had left, written again."""
    unusable: int = 0
    """Rows that made no point for a reason nobody foresaw."""


@dataclass(slots=True)
class HistoryFeed:
    """One task (`run`) wherever dispatch runs; only the one that holds the lease does anything.

    Args:
        database: holds the tables and the marks.
        sending: the way into the series.
        lease: made anew by every term of office: a lost one is never used again.
        clock: business time.
        sleep: waits real seconds; tests give their own.
    """

    database: Database
    sending: Sending
    lease: Callable[[], Lease]
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    poll_s: float = POLL_S
    batch_rows: int = BATCH_ROWS
    statistics: FeedStatistics = field(default_factory=FeedStatistics)
    holds_lease: bool = False
    waiting_since: int | None = None
    """Business ms of the oldest row that is not in the series, as far as it is known; None: there is none."""

    @property
    def lag_ms(self) -> int:
        """Age of the oldest row that is not in the series; it grows while the series is away."""
        return 0 if self.waiting_since is None else max(0, self.clock.now_ms() - self.waiting_since)

    async def run(self) -> None:
        """Follow until cancelled; after a lease was lost, stand by for the next."""
        while True:
            lease = self.lease()
            await lease.take(range(HISTORY_SHARD, HISTORY_SHARD + 1))
            self.holds_lease = True
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(lease.keep())
                    group.create_task(self._follow(lease))
            except* LeaseLostError:
                _log.warning("another process follows the history now")
            finally:
                self.holds_lease = False

    async def _follow(self, lease: Lease) -> None:
        horizon = Horizon(self.database, [source.name for source in SOURCES])
        while True:
            if not await self.step(lease, horizon):
                await self.sleep(self.poll_s)

    async def catch_up(self, lease: Lease) -> None:
        """Return when nothing is left that is final; a day that was simulated ends with it."""
        horizon = Horizon(self.database, [source.name for source in SOURCES])
        while await self.step(lease, horizon):
            continue

    async def step(self, lease: Lease, horizon: Horizon) -> bool:
        """One round over all tables; False if there was nothing to do."""
        final = await horizon.look()
        marks = await self.database.read(_marks)
        moved = False
        for source in SOURCES:
            mark = marks.get(source.name)
            if mark is not None and mark.pending is not None:
                self.statistics.repeated += 1
                points = decode_points(mark.pending)
                self._waits(min(point.at_ns for point in points) // NANOSECONDS_PER_MILLISECOND)
                await self._write(lease, source, mark.position, points)
                moved = True
            if source.name in final:
                moved |= await self._follow_one(lease, source, mark, final[source.name])
        await self._measure_lag()
        return moved

    async def _follow_one(self, lease: Lease, source: Source, mark: _Mark | None, until: int) -> bool:
        if mark is None:
            since_ms = self.clock.now_ms() - FIRST_DAYS * _DAY_MS
            start = await self.database.read(lambda tx: first_position(tx, source, until, since_ms))
            if not await self.database.write(lambda tx: _begin(tx, lease, source.name, start)):
                return True
            position = start
        else:
            position = mark.position
        if position >= until:
            return mark is None
        rows = await self.database.read(lambda tx: source.read(tx, position, until, self.batch_rows))
        end = rows[-1].id if rows else until
        points = [point for row in rows for point in self._points(source, row)]
        pending = encode_points(points) if points else None
        if not await self.database.write(lambda tx: _advance(tx, lease, source.name, position, end, pending)):
            return True  # rows were deleted meanwhile, and their ids may come again: look anew
        reached("history.after_mark")
        if points:
            self._waits(rows[0].at)
            await self._write(lease, source, end, points)
        self.statistics.rows += len(rows)
        self.statistics.batches += 1
        return True

    def _points(self, source: Source, row: Row[Any]) -> Sequence[Point]:
        """A row that nobody can read stops no other: it stays in its table, and in the log."""
        try:
            return source.points(row)
        except Exception:  # noqa: BLE001  # whatever it is: said to the log, and nobody else suffers
            self.statistics.unusable += 1
            _log.exception("a row of the history makes no point", table=source.name, id=row.id)
            return ()

    async def _write(self, lease: Lease, source: Source, position: int, points: list[Point]) -> None:
        await self.sending.send(points)
        reached("history.after_series_write")
        await self.database.write(lambda tx: _forget(tx, lease, source.name, position))

    async def _measure_lag(self) -> None:
        def oldest(tx: Connection) -> int | None:
            marks = _marks(tx)
            found = [
                oldest_waiting(tx, source, marks[source.name].position) for source in SOURCES if source.name in marks
            ]
            return min((at for at in found if at is not None), default=None)

        self.waiting_since = await self.database.read(oldest)

    def _waits(self, at_ms: int) -> None:
        self.waiting_since = at_ms if self.waiting_since is None else min(self.waiting_since, at_ms)


def _marks(tx: Connection) -> dict[str, _Mark]:
    return {row.name: _Mark(row.position, row.pending) for row in tx.execute(select(history_mark))}


def _begin(tx: Connection, lease: Lease, name: str, position: int) -> bool:
    lease.check(tx)
    statement = insert_into(tx, history_mark).on_conflict_do_nothing()
    return tx.execute(statement, {"name": name, "position": position}).rowcount == 1


def _advance(tx: Connection, lease: Lease, name: str, before: int, after: int, pending: bytes | None) -> bool:
    lease.check(tx)
    mine = (_c.name == name) & (_c.position == before) & _c.pending.is_(None)
    return tx.execute(update(history_mark).where(mine).values(position=after, pending=pending)).rowcount == 1


def _forget(tx: Connection, lease: Lease, name: str, position: int) -> None:
    """The points are in the series. Samples go with them: nobody else reads those rows."""
    lease.check(tx)
    values: dict[str, Any] = {"pending": None}
    tx.execute(update(history_mark).where(_c.name == name).values(**values))
    if name == history_sample.name:
        tx.execute(delete(history_sample).where(history_sample.c.id <= position))
