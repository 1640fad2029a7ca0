"""What the cloud needs from the outside, as Protocols. `adapters/` implements them; `bootstrap` joins the two."""

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from cloud.model import Downstream, Inbound, Notification, Recipient
from cloud.signals import Heard, Topic
from fleet.envelope import CommandKeys
from fleet.messages import Command
from fleet.signing import Signer

T = TypeVar("T")


class Database(Protocol):
    """The SQL state: SQLite on one machine, PostgreSQL when outgrown.

    Work runs off the event loop in one transaction each. On SQLite all writes share one thread, so
    two writers never wait for each other's lock.
    """

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it durably; roll back and re-raise what it raises."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot; its writes are refused or rolled back."""
        ...


class Link(Protocol):
    """The way to devices: what was received, and what is published to them."""

    def take(self, messages_max: int) -> Sequence[Inbound]:
        """What has arrived, without waiting; emergencies come first, as a batch of their own. Empty: nothing yet."""
        ...

    def acknowledge(self, messages: Sequence[Inbound]) -> None:
        """Tell the broker that a batch of `take` is committed; ignored for a connection that is gone."""
        ...

    def publish(self, messages: Sequence[Downstream]) -> None:
        """Queue for the devices (QoS 1, bounded); dropping at the bound is counted, the edge asks again."""
        ...

    @property
    def connected(self) -> bool:
        """Whether devices can be heard now."""
        ...

    async def run(self, on_ready: "Wake", shards: Collection[int]) -> None:
        """Keep connected to the broker for these shards; call `on_ready` when something is new."""
        ...


class SpooledBatch(Protocol):
    """Records read from the spool; `next_position` is where to go on."""

    @property
    def envelopes(self) -> list[bytes]: ...
    @property
    def received_at_ms(self) -> list[int]: ...
    @property
    def next_position(self) -> int: ...


class TelemetrySpool(Protocol):
    """Durable, append-only, replayable; positions grow. Every method blocks: call it off the event loop."""

    def append(self, envelopes: Sequence[bytes], received_at_ms: Sequence[int]) -> int:
        """Write raw telemetry envelopes; durable only after `sync`. Returns the position behind them.

        Raises an exception when it is full or the disk failed; nothing of the batch counts as written then.
        """
        ...

    def sync(self) -> int:
        """Make everything appended durable; returns the position up to which it is."""
        ...

    def read(self, position: int) -> SpooledBatch:
        """Durable records from `position`; no envelopes at the end."""
        ...

    def release(self, consumer: str, position: int) -> None:
        """`consumer` (`twin`, `series`) will not read before `position` again; files all have passed may go."""
        ...


class SeriesSink(Protocol):
    """Where the spool is drained to. A point is (kind, tags, at_ns unique among those of the same tags, fields)."""

    async def write(self, points: Sequence["SeriesPoint"]) -> None:
        """Store durably; the same points again change nothing. Raises SeriesError."""
        ...


class SeriesStore(SeriesSink, Protocol):
    """The time series; a repeatable projection of the spool."""

    async def read(
        self, kind: str, device_id: str, field: str, from_ms: int, to_ms: int, step_ms: int, aggregate: str = "mean"
    ) -> list[tuple[int, float]]:
        """(bucket start in ms, value) for buckets that hold data, `from_ms` inclusive, `to_ms` exclusive."""
        ...

    async def count(self, kind: str | None = None) -> int:
        """Number of stored points (readings)."""
        ...

    async def close(self) -> None: ...


class SeriesPoint(Protocol):
    """One reading, step or sample on its way to the series; see `cloud.timeseries` and `cloud.history`.

    `device_id` is a tag, empty where the point is about no single device; `tags` are further ones, in a fixed order.
    """

    kind: str
    device_id: str
    at_ns: int
    fields: dict[str, Any]
    tags: tuple[tuple[str, str], ...]


class SigningKeys(Protocol):
    """The keys that sign for devices (`cloud.device_commands.keys`); `trusted` are the ids a device last listed."""

    @property
    def version(self) -> int:
        """Grows with every change; 0: never changed, nothing to announce."""
        ...

    @property
    def announced_ids(self) -> tuple[str, ...]:
        """Ids that every device should trust, sorted."""
        ...

    def refresh(self) -> bool:
        """Look whether the keys were changed; whether they were."""
        ...

    def for_command(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """(key id, key) for a command."""
        ...

    def for_welcome(self, trusted: Collection[str]) -> tuple[str, Signer]:
        """(key id, key) for a welcome."""
        ...

    def announcement(self, trusted: Collection[str]) -> CommandKeys | None:
        """What a welcome must announce; None without news for this device."""
        ...


class CommandSender(Protocol):
    """Sends signed, expiring commands to devices and knows their outcome (`cloud/device_commands/`)."""

    def order(
        self, tx: Connection, device_id: str, command: Command, *, actor: str, lifetime_s: float | None = None
    ) -> str:
        """Record a command inside the caller's transaction; it leaves after the commit. Returns its id.

        Raises:
            LookupError: no such device.
            ValueError: the device's kind has no such command.
            CommandQueueFullError: a ValueError; too many commands of this device or this person wait for their end.
        """
        ...

    def after_commit(self) -> None:
        """Wake the sender; call it when the transaction that ordered a command is committed."""
        ...

    async def cancel(self, command_id: str, also: Callable[[Connection], None]) -> bool:
        """End a command that is still queued, and do `also` in the same transaction; False if it is not any more."""
        ...

    async def outcome(self, command_id: str, wait_s: float) -> tuple[str, str]:
        """(status, reason) now, or as soon as it is final within `wait_s` real seconds."""
        ...


class CommandQueueFullError(ValueError):
    """Too many commands wait for their end. `bound` is `device`, `urgent` or `actor`."""

    def __init__(self, bound: str, message: str) -> None:
        super().__init__(message)
        self.bound = bound


class LaneIntents(Protocol):
    """How people's acts enter a device's lane (decision 10)."""

    async def submit(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Put an intent into the device's lane and wait until it is committed.

        Returns the stage's answer. Raises IntentRefusedError with the reason (nothing was changed).
        """
        ...


class IntentRefusedError(Exception):
    """The lane refused a person's act: wrong state, or unknown."""


class SeriesError(Exception):
    """The series store did not take the points. `retry_after_s` is None for points that will never be taken."""

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SeriesTooLargeError(SeriesError):
    """The body was too large for the store or a proxy before it; smaller ones may be taken."""


class SeriesAccessError(SeriesError):
    """The store refuses us, not the points: wrong token, missing bucket. A person must act; points wait."""


class NotificationChannel(Protocol):
    """One way to tell people."""

    name: str

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        """Deliver, or raise NotDeliveredError. `delivery_id` lets the receiver drop a repeat."""
        ...


class PersonalChannel(Protocol):
    """One way to single people."""

    name: str

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Deliver to this address, or raise NotDeliveredError. `delivery_id` lets the receiver drop a repeat."""
        ...


class NotDeliveredError(Exception):
    """The channel did not accept the notification; the outbox tries again."""


class AddressRefusedError(NotDeliveredError):
    """The address itself is wrong or gone: trying again is of no use, and its owner is to see it."""


class LiveChanges(Protocol):
    """Fan-out to the pages that are open now; never blocks, keeps nothing."""

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        """Tell whoever listens to `topic` (`call`, `alarm`, `order`, `event`, `command`, `fleet` …)."""
        ...


class Signals(Protocol):
    """Wake-ups between processes on one database; never the truth, which is looked up (`cloud.signals`).

    A transaction says its own with `signals.notify`.
    """

    def subscribe(self, topic: Topic, heard: Heard) -> None:
        """Hear what other processes say, and None when some of it may have been missed; call it before `run`."""
        ...

    def publish(self, topic: Topic, payload: str) -> None:
        """Tell all other processes soon; never blocks, keeps nothing. At most `signals.PAYLOAD_BYTES_MAX`."""
        ...

    async def run(self) -> None:
        """Keep it working until cancelled."""
        ...


Wake = Callable[[], None]
Publish = Callable[[Sequence[Downstream]], None]
AsyncWork = Callable[[], Coroutine[Any, Any, None]]
