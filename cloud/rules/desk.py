"""What the rules remember about one device; stored as JSON beside its state."""

import msgspec

from fleet.incident import AlarmState, AlarmView, CallState


class Shelf(msgspec.Struct):
    """A person hides one alarm for a while; `one_shot` ends with its return, too."""

    id: str
    since: int
    until: int
    one_shot: bool
    actor: str
    reason: str


class Outage(msgspec.Struct):
    """A person took a device, or one of its alarms (`key`), out of service; `window_id` for a planned one."""

    id: str
    key: str
    since: int
    until: int | None
    actor: str
    reason: str
    window_id: str = ""
    created_at: int = 0
    begun: bool = False


class AlarmStatus(msgspec.Struct):
    """One alarm of one device. `since` is when its raw condition last changed, `alarm_id` names its occurrence.

    `activated_at`: the reading's time of this occurrence. `told_at`: when people were last told of it or somebody
    acknowledged it, by our clock; 0 while nobody was.
    """

    state: AlarmState = AlarmState.NORMAL
    condition: bool = False
    since: int = 0
    alarm_id: str = ""
    activated_at: int = 0
    told_at: int = 0
    view: AlarmView = AlarmView.SHOWN
    shelf: Shelf | None = None


class CallStatus(msgspec.Struct):
    """The open emergency call. `escalated_at` is when the last escalation step went out."""

    call_id: str
    state: CallState
    pressed_at: int
    escalation: int
    escalated_at: int
    test: bool = False
    """Somebody tests the button: nobody is paged, unless it is pressed again or not cleared soon."""
    newest_press: tuple[int, int] = (0, 0)
    """Boot epoch and number, in the lane of emergencies, of the last press that belongs to it."""


class Button(msgspec.Struct):
    """What is known of the emergency button besides its alarms; business ms, 0: never."""

    watched_since: int = 0
    proven_at: int = 0
    """When it was last shown to work."""
    test_from: int = 0
    test_until: int = 0
    """The first press between them is a test."""
    faulty_since: int = 0
    """Since when the room has no way to call for help."""
    measure_until: int = 0
    """Until when a substitute measure is recorded."""


class Storage(msgspec.Struct):
    """A storage that spoke for the device: its latest start, the random id of that start, its latest nonces."""

    storage_id: str
    boots: int
    boot_id: str
    nonces: list[str] = []
    emergency_seq: int = 0
    emergency_digest: str = ""
    """The last emergency taken from it in its turn, by `fleet.envelope.content_digest`."""


class Suspended(msgspec.Struct):
    """The storage that a temporary one stands in for, as far as the cloud had heard it."""

    storage_id: str
    generation: int
    emergency_seq: int
    event_seq: int
    telemetry_seq: int


class Desk(msgspec.Struct):
    """Alarms by key (only those that ever were anything but normal), the open call, causes of open needs."""

    alarms: dict[str, AlarmStatus] = {}
    call: CallStatus | None = None
    needs: dict[str, int] = {}
    early: dict[str, str] = {}
    """Event ids of presses that were acted on before their turn came, the oldest first, and the call of each."""
    storages: list[Storage] = []
    """Who spoke for the device, the latest last."""
    granted_at: int = 0
    """When a storage last took over from another one."""
    generations: int = 0
    """The highest generation that was granted; 0: none beyond the lane's own."""
    suspended: Suspended | None = None
    suspended_at: int = 0
    """When a temporary storage last began to stand in; 0: never."""
    missed: bool = False
    """Whether it is silent or sends no readings: then every sign of life matters."""
    button: Button = msgspec.field(default_factory=Button)
    out_of_service: list[Outage] = []
    """Maintenance windows and outages that were said and are not over."""
    mask: int = 0
    """Raw conditions of the kind's table as bits: the hot path compares it and is done."""


_encoder = msgspec.json.Encoder()


def encode_desk(desk: Desk) -> str:
    """JSON for the twin row."""
    return _encoder.encode(desk).decode()


def decode_desk(text: str) -> Desk:
    """The desk from its row."""
    return msgspec.json.decode(text, type=Desk)
