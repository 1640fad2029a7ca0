"""What the journal holds, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from fleet.envelope import VERSION, Envelope, Lane, TimeQuality, boot_epoch
from fleet.messages import FINAL_REPLIES, Reason, ReplyStatus


class JournalError(Exception):
    """The journal could not do what was asked."""


class JournalFullError(JournalError):
    """Neither the database nor the reserve took it: nothing was kept, and nothing may be acknowledged."""


class JournalUnavailableError(JournalError):
    """The disk does not let us have the database now: full, read-only, or failing."""


class JournalCorruptError(JournalError):
    """The database is damaged; it must be opened anew, which sets the damaged file aside."""


class JournalReturnedError(JournalCorruptError):
    """The database that could not be had at the start can be had now: open it anew."""


@dataclass(frozen=True, slots=True)
class Row:
    """One journalled message. Its generation is that of its device, granted possibly later than the row.

    `clock` 0: the time was trusted when it was stamped; otherwise the boot whose clock made the stamp.
    """

    lane: Lane
    seq: int
    boots: int
    occurred_at: int
    payload: bytes
    event_id: str | None = None
    clock: int = 0

    def envelope(
        self, kind: str, device_id: str, generation: int, evicted_from: int | None,
        time_quality: TimeQuality = TimeQuality.EXACT,
    ) -> Envelope:  # fmt: skip
        """The message as it travels."""
        return Envelope(
            VERSION,
            kind,
            device_id,
            boot_epoch(generation, self.boots),
            self.lane,
            self.seq,
            self.occurred_at,
            msgspec.Raw(self.payload),
            evicted_from,
            time_quality,
        )


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What the journal knows of a device after its boot was counted. `generation` 0: none granted yet.

    Above `fences` nothing was sent since the cloud last confirmed that it knows this very storage: a mark beyond one
    tells of messages that another, later state of this storage sent (ADR 0015). `ends`: this storage was salvaged and
    is to be followed by a new one as soon as the cloud has said how far it had come.
    """

    device_id: str
    storage_id: str
    generation: int
    boots: int
    marks: Mapping[Lane, int]
    last_seqs: Mapping[Lane, int]
    fences: Mapping[Lane, int]
    ends: bool = False


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command id this storage has seen, and how far the command came."""

    command_id: str
    status: ReplyStatus
    reason: Reason
    at: int
    reply_acknowledged: bool
    not_after: int = 0
    """Until when the command could have been carried out; its id is kept at least so long."""

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL_REPLIES


class Admission(Enum):
    """What became of a command id that was to be remembered."""

    NEW = "new"
    SEEN = "seen"
    FULL = "full"
    """Every id that is kept could still come again: nothing may be forgotten for this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much one device may keep while the cloud is away. Telemetry goes first, then events, oldest first."""

    rows_max: int = 20_000
    bytes_max: int = 32 * 1024 * 1024
    emergency_rows_max: int = 4_096
    event_ids_max: int = 1_024
    commands_max: int = 1_024
    set_aside_rows_max: int = 1_024
