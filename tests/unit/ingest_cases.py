"""Devices, lanes and messages shared by the tests of the intake."""

import pytest

import devices
from cloud.ingest.intake import Ingest
from cloud.model import DeviceLane, Inbound
from fleet.envelope import Lane
from tests.device_messages import NOW_MS, Speaker, hex_id

BIKE = Speaker("bike-001", "bike")
ROOM = Speaker("room-001", "nursing_room")
MACHINE = Speaker("machine-001", "meal_machine")
SPEAKERS = (BIKE, ROOM, MACHINE)
FALL = {"latitude": 38.8, "longitude": 121.5, "accuracy_metres": 4.0, "tilt_degrees": 80.0}
YEAR_MS = 365 * 86_400_000
DAY_MS = 86_400_000


@pytest.fixture
def lanes():
    return {
        speaker.device_id: DeviceLane(speaker.device_id, speaker.kind, None, None, generation=1) for speaker in SPEAKERS
    }


@pytest.fixture
def ingest(lanes):
    """The stage, past the first message of every telemetry topic, so that the hot path is on."""
    stage = Ingest(lanes, devices.kinds())
    stage.accept(arrived(*(speaker.telemetry(1) for speaker in SPEAKERS)), NOW_MS)
    assert all(lane.telemetry_seq == 1 for lane in lanes.values())
    return stage


def arrived(*messages):
    return [Inbound(topic, data, number + 1, 1) for number, (topic, data) in enumerate(messages)]


def one(ingest, message, **keywords):
    return ingest.accept(arrived(message), NOW_MS, **keywords)


def accepted_seqs(intake):
    telemetry = [(lane.device_id, Lane.TELEMETRY, envelope.seq) for lane, envelope, _ in intake.telemetry]
    in_turn = [item for item in intake.events if not item.early]
    return telemetry + [(item.lane.device_id, item.envelope.lane, item.envelope.seq) for item in in_turn]


NEXT = {
    Lane.TELEMETRY: lambda seq, **changes: (BIKE, 1 + seq, {"readings": [BIKE.reading()]}, changes),
    Lane.EVENT: lambda seq, **changes: (BIKE, seq, {"type": "fall", "event_id": hex_id(seq), **FALL}, changes),
    Lane.EMERGENCY: lambda seq, **changes: (
        ROOM, seq, {"type": "pressed", "event_id": hex_id(seq), "press_id": hex_id(seq)}, changes,
    ),
}  # fmt: skip


def in_lane(lane, number, **changes):
    """The message `number` (from 1) after what the fixture sent, in any lane."""
    speaker, seq, payload, changes = NEXT[lane](number, **changes)
    offset = 1 if lane is Lane.TELEMETRY else 0
    if "evicted_from" in changes:
        changes["evicted_from"] += offset
    at = changes.pop("at", NOW_MS)
    payload = changes.pop("payload", payload)
    return speaker.topic(lane), speaker.envelope(lane, seq, payload, at, **changes)


def mark_of(lanes, lane):
    """Progress since the fixture."""
    device_id = "room-001" if lane is Lane.EMERGENCY else "bike-001"
    return lanes[device_id].mark(lane) - (1 if lane is Lane.TELEMETRY else 0)


def device_of(lane):
    return "room-001" if lane is Lane.EMERGENCY else "bike-001"


all_lanes = pytest.mark.parametrize("lane", list(Lane))

__all__ = ["ingest", "lanes"]
