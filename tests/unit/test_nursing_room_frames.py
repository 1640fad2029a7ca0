"""The room's frames carry every message unchanged and refuse what is none."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.nursing_room import frames, messages
from devices.nursing_room.frames import FrameBodyError, FrameType
from fleet.framing import FrameReader
from fleet.messages import ReplyStatus

IDS = st.integers(0, 2**128 - 1).map("{:032x}".format)
EPOCH_MS = st.integers(0, 253_402_300_799_000)


def scaled(low, high, factor):
    """Numbers as the wire carries them."""
    return st.integers(low * factor, high * factor).map(lambda steps: steps / factor)


READINGS = st.builds(
    messages.RoomReading,
    at=EPOCH_MS,
    call_state=st.sampled_from(["idle", "calling", "received", "help_coming", "attended"]),
    button_link_ok=st.booleans(),
    button_battery_percent=st.integers(0, 100),
    cord_in_place=st.booleans(),
    occupied=st.booleans(),
    fridge_celsius=scaled(-40, 85, 100),
    fridge_door_open=st.booleans(),
    sterilizer_state=st.sampled_from(["idle", "running", "aborted"]),
    sterilizer_door_open=st.booleans(),
    lamp_hours=scaled(0, 100_000, 10),
    air_celsius=scaled(-40, 85, 100),
    air_relative_humidity_percent=scaled(0, 100, 10),
    mains_power=st.booleans(),
    backup_battery_percent=st.integers(0, 100),
)
EVENTS = st.one_of(
    *(st.builds(model, event_id=IDS, press_id=IDS)
      for model in (messages.Pressed, messages.Attended, messages.ClearedAtOrigin)),
    *(st.builds(model, event_id=IDS)
      for model in (messages.CordRemoved, messages.CordReplaced, messages.MainsLost, messages.MainsRestored)),
    st.builds(messages.SelfTestResult, event_id=IDS, passed=st.just(True), failure=st.just("none")),
    st.builds(
        messages.SelfTestResult,
        event_id=IDS,
        passed=st.just(False),
        failure=st.sampled_from(["button_link", "cord", "battery"]),
    ),
    st.builds(
        messages.SterilizerCycleFinished,
        event_id=IDS,
        outcome=st.sampled_from(["completed", "aborted"]),
        duration_seconds=st.integers(0, 86_400),
        lamp_hours=scaled(0, 100_000, 10),
    ),
    st.builds(
        messages.FridgeExcursionEnded,
        event_id=IDS,
        duration_seconds=st.integers(0, 31_536_000),
        peak_celsius=scaled(-40, 85, 100),
    ),
    st.builds(
        messages.Restarted,
        event_id=IDS,
        cause=st.sampled_from(["power_on", "brown_out", "command"]),
        call_restored=st.booleans(),
    ),
)  # fmt: skip


def only_frame(data):
    (frame,) = FrameReader().feed(data)
    return frame


@given(READINGS)
def test_a_reading_arrives_as_it_was(reading):
    frame_type, body = only_frame(frames.encode_reading(reading))
    assert frame_type == FrameType.READING
    assert frames.decode_reading(body) == reading


@given(EPOCH_MS, EVENTS)
def test_an_event_arrives_as_it_was(at, event):
    frame_type, body = only_frame(frames.encode_event(at, event))
    assert frame_type == FrameType.EVENT
    assert frames.decode_event(body) == (at, event)


def test_every_event_of_the_kind_has_a_layout():
    assert {layout.model for layout in frames._LAYOUTS.values()} == set(messages.EVENTS)
    assert set(frames.COMMAND_CODES) == {model.model_fields["action"].default for model in messages.COMMANDS}


@given(IDS, st.sampled_from(list(ReplyStatus)), st.sampled_from(["", "busy", "not_possible", "unknown_action"]))
def test_progress_arrives_as_it_was(command_id, status, reason):
    _, body = only_frame(frames.encode_progress(bytes.fromhex(command_id), status, reason))
    assert frames.decode_progress(body) == (bytes.fromhex(command_id), status, reason)


@pytest.mark.parametrize("decode", [frames.decode_reading, frames.decode_event, frames.decode_progress])
@given(body=st.binary(max_size=80))
def test_garbage_is_refused_or_read_but_never_crashes(decode, body):
    with suppress(FrameBodyError):  # any other exception fails the test
        decode(body)


def test_a_value_no_room_can_have_is_refused():
    good = messages.RoomReading.model_validate(READING)
    _, body = only_frame(frames.encode_reading(good))
    hot = body[:13] + (9_000).to_bytes(2, "big") + body[15:]  # a fridge of 90 °C
    with pytest.raises(FrameBodyError, match="fridge_celsius"):
        frames.decode_reading(hot)


def test_a_lost_delimiter_costs_one_frame_only():
    first = frames.encode_reading(messages.RoomReading.model_validate(READING))
    second = frames.encode_event_ack(bytes(16))
    reader = FrameReader()
    assert [frame_type for frame_type, _ in reader.feed(first[:-1] + second)] == [
        FrameType.READING,
        FrameType.EVENT_ACK,
    ]
    assert reader.errors == 0


READING = {
    "at": 1_800_000_000_000,
    "call_state": "idle",
    "button_link_ok": True,
    "button_battery_percent": 80,
    "cord_in_place": True,
    "occupied": False,
    "fridge_celsius": 3.1,
    "fridge_door_open": False,
    "sterilizer_state": "idle",
    "sterilizer_door_open": False,
    "lamp_hours": 812.5,
    "air_celsius": 23.4,
    "air_relative_humidity_percent": 44.0,
    "mains_power": True,
    "backup_battery_percent": 100,
}
