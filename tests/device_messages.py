"""What devices say, as (topic, bytes): for tests that speak to the cloud without an edge agent."""

import hashlib
import json
from typing import Any

import msgspec

from fleet import topics
from fleet.envelope import VERSION, Envelope, Hello, Lane, Status, boot_epoch, encode
from fleet.messages import Reply
from fleet.topics import UpChannel

NOW_MS = 1_800_000_000_000

BIKE = {
    "at": NOW_MS, "battery_percent": 80.5, "latitude": 38.86, "longitude": 121.52, "accuracy_metres": 4.0,
    "speed_metres_per_second": 0.0, "lock_state": "locked", "tilt_degrees": 2.0, "signal_dbm": -80.0,
    "odometer_metres": 12.5, "temperature_celsius": 20.0,
}  # fmt: skip
SLOT = {
    "slot": "A1", "sku": "rice", "price_fen": 1500, "status": "ready", "capacity_count": 10, "count": 3,
    "lots": [{"lot": "L2601010001", "expires_at": NOW_MS + 100_000, "count": 3}],
}  # fmt: skip
MACHINE = {
    "at": NOW_MS, "chilled_celsius": 4.0, "heater_celsius": 20.0, "door_open": False, "mains_power": True,
    "locked_out": False, "heater_fault": False, "output_occupied": False, "heating_queue_count": 0, "stock_count": 3,
    "slots": [SLOT],
}  # fmt: skip
ROOM = {
    "at": NOW_MS, "call_state": "idle", "button_link_ok": True, "button_battery_percent": 90, "cord_in_place": True,
    "occupied": False, "fridge_celsius": 3.0, "fridge_door_open": False, "sterilizer_state": "idle",
    "sterilizer_door_open": False, "lamp_hours": 10.0, "air_celsius": 22.0, "air_relative_humidity_percent": 50.0,
    "mains_power": True, "backup_battery_percent": 100,
}  # fmt: skip
VALID_READINGS: dict[str, dict[str, Any]] = {"bike": BIKE, "meal_machine": MACHINE, "nursing_room": ROOM}


def hex_id(*parts: object) -> str:
    """32 hexadecimal digits that stay the same for the same parts."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


class Speaker:
    """Builds the messages of one device; counts nothing and remembers nothing but who it is."""

    def __init__(self, device_id: str, kind: str, *, generation: int = 1, boots: int = 1) -> None:
        self.device_id = device_id
        self.kind = kind
        self.generation = generation
        self.boots = boots
        self.storage_id = hex_id("storage", device_id)

    @property
    def boot_epoch(self) -> int:
        return boot_epoch(self.generation, self.boots)

    def topic(self, channel: UpChannel | Lane) -> str:
        return topics.up(self.device_id, UpChannel(channel.value))

    def envelope(self, lane: Lane, seq: int, payload: Any, at: int = NOW_MS, **changes: Any) -> bytes:
        """Any envelope; `payload` is JSON text or plain values, `changes` are fields of the header."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        header: dict[str, Any] = {
            "version": VERSION, "kind": self.kind, "device_id": self.device_id, "boot_epoch": self.boot_epoch,
            "lane": lane, "seq": seq, "occurred_at": at,
        }  # fmt: skip
        return encode(Envelope(**{**header, "payload": msgspec.Raw(text.encode()), **changes}))

    def reading(self, at: int = NOW_MS, **fields: Any) -> dict[str, Any]:
        return {**VALID_READINGS[self.kind], "at": at, **fields}

    def telemetry(self, seq: int, at: int = NOW_MS, **fields: Any) -> tuple[str, bytes]:
        payload = {"readings": [self.reading(at, **fields)]}
        return self.topic(Lane.TELEMETRY), self.envelope(Lane.TELEMETRY, seq, payload, at)

    def event(
        self, seq: int, of: str, at: int = NOW_MS, event_id: str | None = None, **facts: Any
    ) -> tuple[str, bytes]:
        payload = {"type": of, "event_id": event_id or hex_id(self.device_id, of, seq), **facts}
        return self.topic(Lane.EVENT), self.envelope(Lane.EVENT, seq, payload, at)

    def emergency(
        self, seq: int, of: str = "pressed", at: int = NOW_MS, event_id: str | None = None
    ) -> tuple[str, bytes]:
        identity = event_id or hex_id(self.device_id, of, seq)
        payload = {"type": of, "event_id": identity, "press_id": identity}
        return self.topic(Lane.EMERGENCY), self.envelope(Lane.EMERGENCY, seq, payload, at)

    def hello(self, nonce: str = "0" * 32, **changes: Any) -> tuple[str, bytes]:
        fields: dict[str, Any] = {
            "version": VERSION, "kind": self.kind, "device_id": self.device_id, "storage_id": self.storage_id,
            "generation": self.generation, "boots": self.boots, "nonce": nonce, "firmware": "1.0",
            "boot_id": hex_id(self.device_id, self.storage_id, self.boots),
        }  # fmt: skip
        return self.topic(UpChannel.HELLO), encode(Hello(**{**fields, **changes}))

    def status(self, *, online: bool, connection: int = 1) -> tuple[str, bytes]:
        return self.topic(UpChannel.STATUS), encode(Status(self.device_id, self.boot_epoch, connection, online))

    def reply(
        self, command_id: str, status: str, reason: str = "", at: int = NOW_MS, **changes: Any
    ) -> tuple[str, bytes]:
        fields = {"command_id": command_id, "device_id": self.device_id, "status": status, "reason": reason, "at": at}
        reply = Reply.model_validate_json(json.dumps({**fields, **changes}))
        return self.topic(UpChannel.REPLY), reply.model_dump_json().encode()
