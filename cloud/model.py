"""What travels between the stages of the pipeline. Stages do not see each other; they see this file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection

from cloud.presence import Presence
from fleet.credentials import CertificateRequest
from fleet.envelope import Hello, Lane, Status
from fleet.incident import AlarmEvent, AlarmState, AlarmView, CallState, ViewEvent
from fleet.kind import AlarmDefinition, CallStep, Need
from fleet.messages import Command, Reply


class Inbound(msgspec.Struct, frozen=True, gc=False):
    """One PUBLISH as it came from the broker; not acknowledged to it before it is committed.

    `connection` numbers the receiver's connections, so that an acknowledgement never reaches a later one.
    """

    topic: str
    payload: bytes
    packet_id: int
    connection: int


@dataclass(slots=True)
class DeviceLane:
    """Everything the cloud knows about one device, in memory, owned by whoever holds the lease of its shard.

    Only the pipeline changes it, one batch at a time; `twin` rows are its durable copy. `desk` belongs
    to the rules stage (alarms, call, needs). Times are business ms.
    """

    device_id: str
    kind: str
    state: Any
    desk: Any
    generation: int = 0
    storage_id: str | None = None
    emergency_seq: int = 0
    event_seq: int = 0
    telemetry_seq: int = 0
    telemetry_committed_seq: int = 0
    """Up to where `telemetry_seq` stands in the database: all that the device, or a next owner, may count on."""
    online: bool = False
    link_boot_epoch: int = 0
    link_connection: int = 0
    link_changed_at: int = 0
    last_heard_at: int = 0
    last_reading_at: int = 0
    next_due_at: int | None = None
    version: int = 0
    retired: bool = False
    revoked: bool = False
    """Nobody may speak as this device: whatever comes is set aside and not acknowledged."""
    presence: Presence = field(default_factory=Presence)
    reading_before_at: int = 0
    """The reading before the latest one, by its own time."""
    data_at: int = 0
    """When a reading last arrived, by our clock; not stored: after a start nobody is late at once."""

    def mark(self, lane: Lane) -> int:
        """Highest seq accepted in `lane`; every lower one is, too."""
        if lane is Lane.TELEMETRY:
            return self.telemetry_seq
        return self.event_seq if lane is Lane.EVENT else self.emergency_seq

    def advance(self, lane: Lane, seq: int) -> None:
        """Move the mark of `lane` to `seq`."""
        if lane is Lane.TELEMETRY:
            self.telemetry_seq = seq
        elif lane is Lane.EVENT:
            self.event_seq = seq
        else:
            self.emergency_seq = seq

    def marks(self) -> dict[Lane, int]:
        """All three committed marks, as acknowledgements carry them."""
        telemetry = self.telemetry_committed_seq
        return {Lane.EMERGENCY: self.emergency_seq, Lane.EVENT: self.event_seq, Lane.TELEMETRY: telemetry}


@dataclass(slots=True)
class Accepted:
    """A message that is the next one of its lane: its envelope, and its payload validated.

    Exactly one of `readings` (telemetry) and `event` is set. `envelope` is an `Envelope`, or for telemetry
    the hot path's struct with the same header. `late` marks data that waited on the device.
    """

    lane: DeviceLane
    envelope: Any
    raw: bytes
    readings: tuple[Any, ...] = ()
    event: Any = None
    late: bool = False
    early: bool = False
    """An emergency whose number is not the next of its lane: acted on by its event id, acknowledged in its turn."""


@dataclass(slots=True)
class Heard:
    """What a device says besides its lanes, and what people or timers ask of its lane. One field is set."""

    device_id: str
    at: int
    hello: Hello | None = None
    status: Status | None = None
    reply: Reply | None = None
    request: CertificateRequest | None = None
    intent: "Intent | None" = None
    timer: bool = False


@dataclass(slots=True, frozen=True)
class Intent:
    """What a person does to a device's state enters its lane as a message (decision 10).

    `name`: `acknowledge_alarm`, `acknowledge_call`, `retire` … with the arguments the stage expects.
    """

    id: str
    device_id: str
    name: str
    actor: str
    arguments: dict[str, Any]
    at: int


@dataclass(slots=True, frozen=True)
class AlarmChange:
    """One transition of one alarm. `alarm_id` is the same from activation to return.

    `at` is the reading's time, `received_at` ours. `view` is where it happened: what is hidden is told to nobody.
    """

    alarm_id: str
    device_id: str
    kind: str
    definition: AlarmDefinition
    event: AlarmEvent
    before: AlarmState
    after: AlarmState
    at: int
    actor: str = ""
    note: str = ""
    view: AlarmView = AlarmView.SHOWN
    received_at: int = 0
    hidden: "HiddenBy | None" = None


@dataclass(slots=True, frozen=True)
class HiddenBy:
    """Why an alarm is hidden: by whom (or the key of its parent), for what reason, until when (None: open end)."""

    actor: str
    reason: str
    until: int | None = None


@dataclass(slots=True, frozen=True)
class ViewChange:
    """An alarm that is not normal was hidden, is hidden for another reason, or is shown again."""

    alarm_id: str
    device_id: str
    kind: str
    definition: AlarmDefinition
    event: ViewEvent
    before: AlarmView
    after: AlarmView
    state: AlarmState
    activated_at: int
    at: int
    hidden: HiddenBy | None = None
    actor: str = ""


@dataclass(slots=True, frozen=True)
class HidingChange:
    """A shelf, a maintenance window or an outage of one device began (`ended_at` None) or ended.

    `key` is the alarm's, empty for all alarms of the device. `form`: `shelf`, `window`, `out_of_service`.
    """

    id: str
    device_id: str
    key: str
    form: str
    from_at: int
    until_at: int | None
    actor: str
    reason: str
    at: int
    window_id: str = ""
    one_shot: bool = False
    ended_at: int | None = None
    ended_by: str = ""
    ended_reason: str = ""


@dataclass(slots=True, frozen=True)
class CallChange:
    """One transition of one emergency call, or one step of its escalation (`escalation` counts from 0, else None)."""

    call_id: str
    device_id: str
    kind: str
    before: CallState
    after: CallState
    at: int
    step: CallStep | None = None
    actor: str = ""
    event_id: str = ""
    escalation: int | None = None
    received_at: int = 0
    purpose: str = "help"
    """`help`, `test` (of the button, nobody is paged) or `synthetic` (`cloud.synthetic`)."""


@dataclass(slots=True, frozen=True)
class NeedChange:
    """Work that a device's state asks for (`wanted`, with `need`) or no longer asks for (`need` is None)."""

    device_id: str
    kind: str
    cause: str
    need: Need | None
    wanted: bool
    at: int


@dataclass(slots=True)
class Decisions:
    """What the rules concluded from one batch, in order; dispatch turns it into rows of the same commit."""

    alarms: list[AlarmChange] = field(default_factory=list)
    calls: list[CallChange] = field(default_factory=list)
    needs: list[NeedChange] = field(default_factory=list)
    feedback: list[tuple[str, Command]] = field(default_factory=list)
    """(device id, command that shows the caller how far help is)."""
    attention: set[str] = field(default_factory=set)
    """Devices whose next due time may have changed."""
    views: list[ViewChange] = field(default_factory=list)
    hidings: list[HidingChange] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.alarms or self.calls or self.needs or self.views or self.hidings)


@dataclass(slots=True, frozen=True)
class StoredEvent:
    """An event with what a product service needs; `body` is the validated event (attributes as in the kind's model)."""

    device_id: str
    kind: str
    type: str
    event_id: str
    occurred_at: int
    received_at: int
    body: Any


@dataclass(slots=True, frozen=True)
class CommandOutcome:
    """A reply of a device, or the expiry of a command: `status` and `reason` as in `fleet.messages`."""

    command_id: str
    device_id: str
    action: str
    status: str
    reason: str
    at: int
    by_device: bool = False
    """The device said it; else the cloud ended the command without an answer, and nobody knows what the device did."""


EventHandler = Callable[[Connection, StoredEvent], None]
"""Runs inside the pipeline's commit, exactly once per event; must not block on anything but its own SQL."""

OutcomeHandler = Callable[[Connection, CommandOutcome], None]
"""Runs inside the commit that stores the outcome."""


@dataclass(slots=True, frozen=True)
class Quarantined:
    """A message that could not be used: its bytes and why. Never blocks its lane."""

    received_at: int
    topic: str
    payload: bytes
    reason: str
    device_id: str | None = None
    lane: Lane | None = None
    seq: int | None = None


class Downstream(msgspec.Struct, frozen=True, gc=False):
    """Bytes for one device, to be published after the commit."""

    topic: str
    payload: bytes
    expires_s: float | None = None
    """Monotonic moment after which it is of no use; the broker is told, too. None: the link's own limit."""


@dataclass(slots=True, frozen=True)
class Recipient:
    """One person as a channel needs them. `address` belongs to `contact_id`; `language` as in `person`."""

    person_id: str
    contact_id: str
    address: str
    language: str


@dataclass(slots=True, frozen=True)
class Notification:
    """Something people must be told; becomes one outbox row per channel and recipient.

    `kind_of`: `call`, `alarm`, `order`, `system`. `reference` is the id of the call, alarm or order.
    `facts` is sent to machines (webhook) and rendered for people by templates in both languages.
    """

    kind_of: str
    reference: str
    priority: str
    device_id: str
    title_zh: str
    title_en: str
    facts: dict[str, Any]
    created_at: int
    audience: str = "on_call"
