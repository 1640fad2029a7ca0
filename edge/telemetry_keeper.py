"""Readings of one device: durable at once, and on their way in messages of as many as suit the moment.

While the lane flows, a reading is journalled as (part of) a message within a commit window. A reading that is to
wait for others, or for the network, is kept in the journal by itself, so that a kill or a power cut costs at most
what arrived within the last commit window (`COMMIT_WITHIN_S`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

from edge.batch import TelemetryBatch, WaitingReading
from edge.journal import Journal
from edge.records import JournalError, JournalFullError
from edge.wake import Wake
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import Lane
from fleet.messages import Reading

T = TypeVar("T")
_Writing: TypeAlias = tuple[asyncio.Future[Any], Callable[[Any], None]]
"""A write under way, and what is to be done with its result."""


class TelemetryKeeper:
    """Between the driver and the journal's telemetry lane."""

    def __init__(
        self,
        device_id: str,
        batch: TelemetryBatch,
        journal: Journal,
        clock: Clock,
        retry_s: float,
        counts: Counter[str],
        flows: Callable[[], bool],
    ) -> None:
        """`flows` says whether a message that is journalled now would soon be on its way; see `wake`."""
        self._device_id = device_id
        self._batch = batch
        self._journal = journal
        self._clock = clock
        self._retry_s = retry_s
        self._counts = counts
        self._flows = flows
        self._wake = Wake()
        self._writing: _Writing | None = None

    @property
    def waiting(self) -> int:
        """Readings that are in no message yet."""
        return len(self._batch)

    @property
    def lost(self) -> int:
        """Readings discarded because the journal took none for too long."""
        return self._batch.lost

    def add(self, readings: Iterable[Reading], clock: int = 0) -> None:
        """Take what the driver read; `clock` as in `edge.records.Row`."""
        now_ms = self._clock.now_ms()
        for reading in readings:
            self._batch.add(reading, now_ms, clock)
        self._wake.set()

    def wake(self) -> None:
        """The lane may flow again."""
        if len(self._batch):
            self._wake.set()

    async def restore(self) -> None:
        """Take up what was kept before the start."""
        with suppress(JournalError):  # unreadable now; the journal sets itself aside where it is written
            kept = await self._journal.read(lambda store: store.kept_readings(self._device_id))
            self._batch.restore(kept, self._clock.now_ms())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            wait_ms = self._batch.wait_ms(self._clock.now_ms(), flows=self._flows())
            try:
                if wait_ms == 0:
                    await self._journal_message()
                    continue
                await self.keep()
            except JournalFullError:
                self._counts["telemetry_postponed"] += 1
                await asyncio.sleep(self._retry_s)
                continue
            await self._wake.wait(None if wait_ms is None else wait_ms / MILLISECONDS_PER_SECOND / self._clock.speed)

    async def keep(self) -> None:
        """Make durable what is in memory only. Raises JournalFullError."""
        await self._see_through()
        waiting = self._batch.not_kept()
        if waiting:
            kept = self._journal.keep_readings(
                self._device_id, [(reading.at, reading.payload, reading.clock) for reading in waiting]
            )
            await self._write(kept, partial(self._kept, waiting))

    async def _journal_message(self) -> None:
        await self._see_through()
        if not len(self._batch):
            return
        occurred_at, payload, readings = self._batch.peek()
        numbers = [reading.number for reading in readings if reading.number is not None]
        appended = self._journal.append(
            self._device_id, Lane.TELEMETRY, occurred_at, payload, reading_ids=numbers, clock=readings[0].clock
        )
        await self._write(appended, lambda _: self._sent_off(readings))

    async def _see_through(self) -> None:
        """Await a write whose task was cancelled over it: the journal makes it all the same, and no other shall."""
        if self._writing is not None:
            with suppress(JournalFullError):
                await self._finish(self._writing)

    async def _write(self, result: asyncio.Future[T], done: Callable[[T], None]) -> None:
        self._writing = result, done
        await self._finish(self._writing)

    async def _finish(self, writing: _Writing) -> None:
        future, done = writing
        try:
            result = await asyncio.shield(future)
        except JournalFullError:
            self._writing = None
            raise
        self._writing = None
        done(result)

    def _kept(self, readings: Sequence[WaitingReading], numbers: Sequence[int]) -> None:
        for reading, number in zip(readings, numbers, strict=True):
            reading.number = number

    def _sent_off(self, readings: list[WaitingReading]) -> None:
        self._batch.remove(readings, self._clock.now_ms())
        self._counts["readings"] += len(readings)
