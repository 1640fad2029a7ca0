"""Readings of one device: durable at once, and on their way in messages of as many as suit the moment.

While the lane flows, a reading is journalled as (part of) a message within a commit window. A reading that is to
wait for others, or for the network, is kept in the journal by itself, so that a kill or a power cut costs at most
what arrived within the last commit window (`COMMIT_WITHIN_S`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from edge.batch import TelemetryBatch
from edge.journal import Journal
from edge.records import JournalError, JournalFullError
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import Lane
from fleet.messages import Reading


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
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Readings that are in no message yet."""
        return len(self._batch)

    @property
    def lost(self) -> int:
        """Readings discarded because the journal took none for too long."""
        return self._batch.lost

    def add(self, readings: Iterable[Reading]) -> None:
        """Take what the driver read."""
        now_ms = self._clock.now_ms()
        for reading in readings:
            self._batch.add(reading, now_ms)
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
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    None if wait_ms is None else wait_ms / MILLISECONDS_PER_SECOND / self._clock.speed
                ):
                    await self._wake.wait()

    async def keep(self) -> None:
        """Make durable what is in memory only. Raises JournalFullError."""
        waiting = self._batch.not_kept()
        if waiting:
            numbers = await self._journal.keep_readings(
                self._device_id, [(reading.at, reading.payload) for reading in waiting]
            )
            for reading, number in zip(waiting, numbers, strict=True):
                reading.number = number

    async def _journal_message(self) -> None:
        occurred_at, payload, readings = self._batch.peek()
        numbers = [reading.number for reading in readings if reading.number is not None]
        await self._journal.append(self._device_id, Lane.TELEMETRY, occurred_at, payload, reading_ids=numbers)
        self._batch.remove(readings, self._clock.now_ms())
        self._counts["readings"] += len(readings)
