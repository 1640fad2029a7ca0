"""What the rules remember about one device; stored as JSON beside its state."""

import msgspec

from fleet.incident import AlarmState, CallState


class AlarmStatus(msgspec.Struct):
    """One alarm of one device. `since` is when its raw condition last changed, `alarm_id` names its occurrence."""

    state: AlarmState = AlarmState.NORMAL
    condition: bool = False
    since: int = 0
    alarm_id: str = ""


class CallStatus(msgspec.Struct):
    """The open emergency call. `escalated_at` is when the last escalation step went out."""

    call_id: str
    state: CallState
    pressed_at: int
    escalation: int
    escalated_at: int


class Storage(msgspec.Struct):
    """A storage that spoke for the device: its latest start, the random id of that start, its latest nonces."""

    storage_id: str
    boots: int
    boot_id: str
    nonces: list[str] = []


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
    missed: bool = False
    """Whether it is silent or sends no readings: then every sign of life matters."""
    mask: int = 0
    """Raw conditions of the kind's table as bits: the hot path compares it and is done."""


def encode_desk(desk: Desk) -> str:
    """JSON for the twin row."""
    return msgspec.json.encode(desk).decode()


def decode_desk(text: str) -> Desk:
    """The desk from its row."""
    return msgspec.json.decode(text, type=Desk)
