"""Whether the cloud knows this very storage, or a later state of which this one is an old copy (ADR 0015).

A storage may be set back: restored from a copy, or on a card that lost its last writes. Its numbers then stand for
other messages in the cloud than here. The fences tell both apart: nothing above them was sent since the cloud last
confirmed this storage, so a mark beyond them is not ours, and below them both states are the same. Emergencies alone
leave before that; whether those the cloud has are ours, the content of the last one tells.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from edge.journal import Journal
from edge.records import DeviceRecord, JournalFullError
from fleet.envelope import Lane, Welcome, content_digest

_log = logging.getLogger(__name__)


class StorageClaim:
    """What one device may say about its storage, from a start on."""

    def __init__(self, record: DeviceRecord, journal: Journal) -> None:
        self.storage_id = record.storage_id
        self.ends = record.ends
        """Whether a new storage is to follow this one in any case."""
        self.confirmed = False
        """Whether the cloud has shown since this start that it knows this very storage."""
        self._device_id = record.device_id
        self._journal = journal
        self._fences = dict(record.fences)
        self._answered = asyncio.Event()

    def is_behind(self, lane: Lane, mark: int, highest_taken: int) -> bool:
        """Whether `mark` is more than this storage can have sent; `highest_taken` was given out since the start.

        What was journalled and not sent says nothing: fresh messages would pass for acknowledged. Nor do emergencies
        that left before the cloud confirmed this storage: their numbers may be another state's.
        """
        return mark > max(self._fences[lane], highest_taken if self.confirmed else 0)

    async def recognises(self, welcome: Welcome, kind_name: str, generation: int) -> bool:
        """Whether the last emergency that the cloud has is here, sent by an earlier start before any welcome.

        What lies before a message that is the same here and there is the same, too: a journal is only added to.
        """
        mark = welcome.marks.get(Lane.EMERGENCY, 0)
        if not welcome.emergency_digest or welcome.generation != generation:
            return False
        found = await self._journal.pending(self._device_id, Lane.EMERGENCY, mark - 1, 1)
        if not found or found[0].seq != mark:
            return False
        ours = found[0].envelope(kind_name, self._device_id, generation, None)
        return content_digest(ours) == welcome.emergency_digest

    async def wait(self, most_s: float) -> None:
        """Until the cloud has said where this storage stands, at most `most_s`."""
        if not self.confirmed:
            with suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._answered.wait()

    async def confirm(self) -> None:
        """The cloud stands where this storage can be; durable before anything above the fences is sent."""
        if not self.confirmed:
            with suppress(JournalFullError):  # after a crash this storage then looks like an old copy: it is sent anew
                await self._journal.confirm(self._device_id)
            self._confirm()

    def granted(self, marks: Mapping[Lane, int]) -> None:
        """A generation was granted, and the lanes go on after `marks`."""
        self._fences = {lane: marks.get(lane, 0) for lane in Lane}
        self._confirm()

    def _confirm(self) -> None:
        self.confirmed = True
        self._answered.set()

    async def begin_anew(self, marks: Mapping[Lane, int]) -> bool:
        """Follow this storage by a new one, to which the cloud grants the next generation: no key is ever repeated.

        What the cloud has from below the fences is delivered. Emergencies are all sent again: it knows them by their
        event ids. False if the journal has no room.
        """
        delivered = {lane: min(marks.get(lane, 0), self._fences[lane]) for lane in (Lane.EVENT, Lane.TELEMETRY)}
        try:
            self.storage_id = await self._journal.begin_storage(self._device_id, delivered)
        except JournalFullError:
            self._answered.set()  # emergencies need not wait for the disk
            return False
        _log.error(
            "%s: %s; a new storage begins",
            self._device_id,
            "the journal was damaged" if self.ends else "the cloud has more than this storage ever sent (an old copy?)",
        )
        self.ends = False
        return True
