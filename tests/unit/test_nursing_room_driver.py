"""The room's driver: line acknowledgements, lights, repetitions and time-outs."""

import pytest

from devices.nursing_room import frames, messages
from devices.nursing_room.driver import (
    COMMAND_REPEAT_MS,
    COMMAND_TIMEOUT_MS,
    COMMANDS_PENDING_MAX,
    LIGHTS_RESERVE,
    create,
)
from devices.nursing_room.frames import FrameType
from fleet.framing import FrameReader, encode_frame
from fleet.messages import ReplyStatus

NOW = 1_800_000_000_000
PRESS = messages.Pressed(event_id="e1" * 16, press_id="b1" * 16)
COMMAND_ID = "c0" * 16
CALLING = messages.RoomReading(
    at=NOW, call_state="calling", button_link_ok=True, button_battery_percent=80, cord_in_place=True, occupied=True,
    fridge_celsius=3.0, fridge_door_open=False, sterilizer_state="idle", sterilizer_door_open=False, lamp_hours=1.0,
    air_celsius=23.0, air_relative_humidity_percent=40.0, mains_power=True, backup_battery_percent=100,
)  # fmt: skip


@pytest.fixture
def driver():
    return create("room-001")


def frames_in(data):
    return FrameReader().feed(data)


def answer(command_id, status, reason=""):
    return frames.encode_progress(bytes.fromhex(command_id), status, reason)


def test_it_asks_for_the_state_when_the_line_opens(driver):
    assert frames_in(driver.on_start(NOW).to_hardware) == [(FrameType.STATUS_REQUEST, b"")]


def test_an_event_is_passed_once_and_acknowledged_every_time_after_the_commit(driver):
    data = frames.encode_event(NOW - 5, PRESS)
    first, second = driver.on_bytes(data, NOW), driver.on_bytes(data, NOW + 9)
    assert first.events == ((NOW - 5, PRESS),)
    assert second.events == ()
    for output in (first, second):
        assert frames_in(output.after_commit) == [(FrameType.EVENT_ACK, bytes.fromhex(PRESS.event_id))]
        assert output.to_hardware == b""


def test_a_stream_cut_anywhere_gives_the_same_messages():
    data = frames.encode_reading(CALLING) + frames.encode_event(NOW, PRESS)
    for cut in range(len(data)):
        cold = create("room-001")
        outputs = [cold.on_bytes(data[:cut], NOW), cold.on_bytes(data[cut:], NOW)]
        assert sum((output.readings for output in outputs), ()) == (CALLING,)
        assert sum((output.events for output in outputs), ()) == ((NOW, PRESS),)
        assert cold.frame_errors == 0


@pytest.mark.parametrize("skew_ms", [-10 * 365 * 86_400_000, 10 * 365 * 86_400_000])
def test_a_wrong_clock_in_the_room_does_not_cost_the_press(driver, skew_ms):
    assert driver.on_bytes(frames.encode_event(NOW + skew_ms, PRESS), NOW).events == ((NOW, PRESS),)
    reading = CALLING.model_copy(update={"at": NOW + skew_ms})
    assert driver.on_bytes(frames.encode_reading(reading), NOW).readings == (CALLING,)


def test_received_is_lit_for_the_acknowledged_press_alone(driver):
    (frame_type, body), = frames_in(driver.on_acknowledged(PRESS, NOW).to_hardware)  # fmt: skip
    assert frame_type == FrameType.COMMAND
    _, action, press_id = frames.decode_command(body)
    assert (action, press_id.hex()) == ("show_received", PRESS.press_id)
    cleared = messages.ClearedAtOrigin(event_id="e2" * 16, press_id=PRESS.press_id)
    assert driver.on_acknowledged(cleared, NOW).to_hardware == b""


def test_received_is_lit_again_while_the_room_still_says_calling(driver):
    driver.on_acknowledged(PRESS, NOW)
    assert driver.on_bytes(frames.encode_reading(CALLING), NOW).to_hardware == b""  # the first is still under way
    assert driver.on_bytes(answer(PRESS.press_id, ReplyStatus.SUCCEEDED), NOW).progress == ()
    assert driver.on_bytes(frames.encode_reading(CALLING), NOW).to_hardware
    idle = CALLING.model_copy(update={"call_state": "idle"})
    driver.on_bytes(answer(PRESS.press_id, ReplyStatus.FAILED, "not_possible") + frames.encode_reading(idle), NOW)
    assert driver.on_bytes(frames.encode_reading(CALLING), NOW).to_hardware == b""  # that is another call


def test_a_command_is_written_again_until_the_hardware_answers(driver):
    written = driver.on_command(COMMAND_ID, messages.StartSelfTest(), NOW).to_hardware
    assert driver.next_due_ms == NOW + COMMAND_REPEAT_MS
    assert driver.on_timer(driver.next_due_ms).to_hardware == written
    executing = driver.on_bytes(answer(COMMAND_ID, ReplyStatus.EXECUTING), NOW + 3_000)
    assert [step.status for step in executing.progress] == [ReplyStatus.EXECUTING]
    assert driver.on_bytes(answer(COMMAND_ID, ReplyStatus.EXECUTING), NOW + 3_001).progress == ()
    assert driver.next_due_ms == NOW + COMMAND_TIMEOUT_MS["start_self_test"]  # no repetition once it was heard
    done = driver.on_bytes(answer(COMMAND_ID, ReplyStatus.SUCCEEDED), NOW + 7_000)
    assert [step.status for step in done.progress] == [ReplyStatus.SUCCEEDED]
    assert driver.next_due_ms is None


def test_silent_hardware_fails_the_command_and_a_late_answer_changes_nothing(driver):
    driver.on_command(COMMAND_ID, messages.ShowHelpComing(), NOW)
    output = driver.on_timer(NOW + COMMAND_TIMEOUT_MS["show_help_coming"])
    assert [(step.status, step.reason) for step in output.progress] == [(ReplyStatus.FAILED, "hardware_silent")]
    assert driver.on_bytes(answer(COMMAND_ID, ReplyStatus.SUCCEEDED), NOW + 60_000).progress == ()


def test_the_drivers_own_light_times_out_without_a_reply(driver):
    driver.on_acknowledged(PRESS, NOW)
    assert driver.on_timer(NOW + COMMAND_TIMEOUT_MS["show_received"]).progress == ()
    assert driver.next_due_ms is None


def test_a_command_given_twice_is_written_once(driver):
    driver.on_command(COMMAND_ID, messages.Reboot(), NOW)
    assert driver.on_command(COMMAND_ID, messages.Reboot(), NOW + 1).to_hardware == b""


def test_too_many_commands_are_refused_as_busy(driver):
    for number in range(COMMANDS_PENDING_MAX):
        assert driver.on_command(f"{number:032x}", messages.StartSelfTest(), NOW).progress == ()
    output = driver.on_command(COMMAND_ID, messages.StartSelfTest(), NOW)
    assert [(step.status, step.reason) for step in output.progress] == [(ReplyStatus.REFUSED, "busy")]


@pytest.mark.parametrize(
    "noise",
    [
        frames.encode_reading(CALLING)[:-4] + b"\xff\xff\xff\x00",
        encode_frame(0x7F, b"?"),
        encode_frame(FrameType.READING, b"short"),
        encode_frame(FrameType.EVENT, bytes(24) + b"\xee"),
        encode_frame(FrameType.PROGRESS, bytes(16) + b"\xff\xff"),
    ],
)
def test_noise_is_counted_and_what_follows_is_read(driver, noise):
    output = driver.on_bytes(noise + frames.encode_event(NOW, PRESS), NOW)
    assert output.events == ((NOW, PRESS),)
    assert driver.frame_errors == 1


def test_a_light_names_its_press_on_the_line(driver):
    told = driver.on_command(COMMAND_ID, messages.ShowHelpComing(press_id=PRESS.press_id), NOW).to_hardware
    ((_, body),) = frames_in(told)
    assert frames.decode_command(body) == (
        bytes.fromhex(COMMAND_ID), "show_help_coming", bytes.fromhex(PRESS.press_id),
    )  # fmt: skip


def test_help_coming_is_not_refused_because_other_commands_are_slow(driver):
    for number in range(COMMANDS_PENDING_MAX):
        driver.on_command(f"{number:032x}", messages.StartSelfTest(), NOW)
    assert driver.on_command("f" * 32, messages.StartSelfTest(), NOW).progress[0].reason == "busy"
    assert driver.on_command("e" * 32, messages.ShowHelpComing(press_id=PRESS.press_id), NOW).to_hardware
    for number in range(LIGHTS_RESERVE - 1):
        assert driver.on_command(f"d{number:031x}", messages.ShowHelpComing(), NOW).to_hardware
    assert driver.on_command("c" * 32, messages.ShowHelpComing(), NOW).progress[0].reason == "busy"
