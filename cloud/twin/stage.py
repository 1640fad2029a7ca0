"""Folds accepted messages into each device's state by its kind's own `state.py`, and keeps its link apart.

Link-alive (broker session), data-fresh (last reading) and heard (any message) are three times, never one.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

import devices
from cloud.derived_models import UntranslatableError, struct_of
from cloud.model import Accepted, DeviceLane
from fleet.envelope import Hello, Status
from fleet.kind import DeviceState, Kind

_encoder = msgspec.json.Encoder()


class Twin:
    """The stage; pure apart from the lanes it is given to change."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._roles: dict[str, Any] = {name: devices.role(name, "state") for name in kinds}
        self._apply_reading = {name: module.apply_reading for name, module in self._roles.items()}
        self._readings: dict[str, Any] = {}
        for name, kind in kinds.items():
            try:
                self._readings[name] = struct_of(kind.reading)
            except UntranslatableError:
                self._readings[name] = kind.reading

    def new_lane(self, device_id: str, kind: str) -> DeviceLane:
        """A device that never said anything yet; `desk` is set by the rules stage."""
        return DeviceLane(device_id, kind, self._roles[kind].initial(device_id), None)

    def knows(self, kind: str) -> bool:
        """Whether a folder offers this kind."""
        return kind in self._roles

    def on_reading(self, lane: DeviceLane, reading: Any, now_ms: int) -> None:
        """One reading, in the order of its lane: a device whose clock was set back is still believed."""
        lane.last_heard_at = lane.data_at = now_ms
        lane.reading_before_at = lane.last_reading_at
        lane.last_reading_at = reading.at
        lane.state = self._apply_reading[lane.kind](lane.state, reading)

    def on_event(self, accepted: Accepted, now_ms: int) -> None:
        """One event, in order."""
        lane = accepted.lane
        lane.last_heard_at = now_ms
        lane.state = self._roles[lane.kind].apply_event(lane.state, accepted.event, accepted.envelope.occurred_at)

    @staticmethod
    def on_hello(lane: DeviceLane, hello: Hello, now_ms: int) -> None:
        """Whoever says hello is connected, also if nobody listened when it said so; it repeats the hello alone."""
        presence = lane.presence
        if hello.firmware != presence.firmware:
            presence.firmware_before, presence.firmware_at = presence.firmware, now_ms
        presence.hello_at, presence.firmware, presence.boots = now_ms, hello.firmware, hello.boots
        if not lane.online:
            lane.online, lane.link_changed_at = True, now_ms

    def on_status(self, lane: DeviceLane, status: Status, now_ms: int) -> None:
        """Link up or down; a will from an older boot or connection than the present one is stale."""
        if (status.boot_epoch, status.connection) < (lane.link_boot_epoch, lane.link_connection):
            return
        lane.link_boot_epoch, lane.link_connection = status.boot_epoch, status.connection
        if lane.online != status.online:
            lane.online = status.online
            lane.link_changed_at = now_ms
            if not status.online:
                lane.presence.dropped(now_ms)
        if status.online:
            lane.last_heard_at = now_ms

    def encode_state(self, state: DeviceState) -> str:
        """JSON for the twin row."""
        reading = state.reading
        if reading is not None and not isinstance(reading, msgspec.Struct):  # it took the slow way: pydantic's
            state = msgspec.structs.replace(state, reading=reading.model_dump(mode="json"))
        return _encoder.encode(state).decode()

    def decode_state(self, kind: str, text: str) -> DeviceState:
        """The state from its row; its reading becomes readable by attribute again."""
        state: DeviceState = msgspec.json.decode(text, type=self._roles[kind].State)
        if state.reading is None:
            return state
        reading = self._readings[kind]
        if issubclass(reading, msgspec.Struct):
            return msgspec.structs.replace(state, reading=msgspec.convert(state.reading, reading))
        return msgspec.structs.replace(state, reading=reading.model_validate_json(msgspec.json.encode(state.reading)))
