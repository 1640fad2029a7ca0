"""Driver and simulator of every kind over an in-memory line: nothing lost, nothing doubled, nothing invented."""

import json
import random
from collections import Counter

import pytest
from device_line import STARTED_MS, Damage, Line
from device_strategies import instances
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import devices
from fleet.framing import encode_frame
from fleet.kind import literal_of
from fleet.messages import FINAL_REPLIES

KIND_NAMES = sorted(devices.kinds())
KIND_COMMANDS = [(name, model) for name in KIND_NAMES for model in devices.kind_named(name).commands]
COMMAND_ID = "c0" * 16
few = settings(
    max_examples=4,
    deadline=None,
    phases=(Phase.generate,),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def quiet_actions(kind_name):
    return (
        devices.role(kind_name, "simulator")
        .create("any", random.Random(0), devices.role(kind_name, "simulator").sites(1, random.Random(0))[0], STARTED_MS)
        .ACTIONS
    )


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_readings_arrive_at_the_interval(kind_name):
    kind = devices.kind_named(kind_name)
    line = Line(kind_name)
    line.run(1)
    assert line.readings, "the driver asks for the state when the line opens"
    line.run(4 * kind.reading_interval_s)
    assert len(line.readings) >= 4
    for reading in line.readings:
        assert type(reading) is kind.reading
        assert STARTED_MS <= reading.at <= line.now_ms
        assert kind.reading.model_validate_json(reading.model_dump_json()) == reading
    assert [reading.at for reading in line.readings] == sorted(reading.at for reading in line.readings)


@pytest.mark.parametrize(("kind_name", "model"), KIND_COMMANDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_command_comes_to_one_final_answer(kind_name, model):
    @few
    @given(command=instances(model), seed=st.integers(0, 2**16))
    def check(command, seed):
        line = Line(kind_name, seed=seed)
        line.run(30)
        line.command(COMMAND_ID, command)
        line.run(900)
        statuses = [progress.status for progress in line.progress if progress.command_id == COMMAND_ID]
        assert sum(status in FINAL_REPLIES for status in statuses) == 1, statuses
        assert statuses[-1] in FINAL_REPLIES

    check()


@pytest.mark.parametrize(("kind_name", "model"), KIND_COMMANDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_dead_line_fails_every_command_by_time_out(kind_name, model):
    @few
    @given(command=instances(model))
    def check(command):
        driver = devices.role(kind_name, "driver").create("any")
        driver.on_start(STARTED_MS)
        now_ms = STARTED_MS
        progress = list(driver.on_command(COMMAND_ID, command, now_ms).progress)
        for _ in range(2_000):
            if any(step.status in FINAL_REPLIES for step in progress):
                break
            assert driver.next_due_ms is not None, "nothing would ever end this command"
            now_ms = max(now_ms, driver.next_due_ms)
            progress += driver.on_timer(now_ms).progress
        assert progress[-1].status in FINAL_REPLIES
        assert progress[-1].reason, "a failure has a reason"

    check()


@pytest.mark.parametrize("kind_name", KIND_NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_event_arrives_exactly_once_through_a_lossy_line(kind_name, seed):
    damage = Damage(random.Random(seed), drop_probability=0.15, corrupt_probability=0.15)
    line = Line(kind_name, seed=seed, damage=damage)
    choices = random.Random(seed)
    actions = list(quiet_actions(kind_name)) * 2
    choices.shuffle(actions)
    commands = [model for model in devices.kind_named(kind_name).commands if not model_needs_arguments(model)]
    for number, action in enumerate(actions):
        line.act(action)
        line.run(choices.uniform(1, 400))
        if commands and number % 2:
            line.command(f"{number:032x}", choices.choice(commands)())
            line.run(choices.uniform(1, 300))
    line.damage = Damage(random.Random(0))
    line.run(1_800)

    told = Counter(truth.event_id for truth in line.truths if truth.event_id is not None)
    assert told, "the actions of people cause events"
    assert max(told.values()) == 1, "hardware gives every event an id of its own"
    arrived = Counter(event.event_id for _, event in line.events)
    assert arrived == told
    by_id = {event.event_id: event for _, event in line.events}
    for truth in line.truths:
        if truth.event_id is not None:
            event = by_id[truth.event_id]
            for name in truth.facts.keys() & type(event).model_fields.keys():
                assert as_told(getattr(event, name)) == as_told(truth.facts[name]), (truth, event)
    assert line.driver.frame_errors > 0, "the line did damage something"


def as_told(value):
    """A value of an event or a truth in one shape: containers and models as their text, numbers to six digits."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return pytest.approx(value) if isinstance(value, float) else value
    return json.loads(json.dumps(value, default=lambda model: model.model_dump()))


def model_needs_arguments(model):
    return any(field.is_required() for field in model.model_fields.values())


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_the_events_of_people_cover_the_kind(kind_name):
    """What people can do to a device reaches most event types; the rest need faults or commands."""
    line = Line(kind_name, seed=7)
    for action in quiet_actions(kind_name):
        line.act(action)
        line.run(600)
    known = {literal_of(model, "type") for model in devices.kind_named(kind_name).events}
    assert {event.type for _, event in line.events} <= known
    assert line.events


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_the_same_seed_gives_the_same_bytes(kind_name):
    def day(seed):
        line = Line(kind_name, seed=seed)
        for action in quiet_actions(kind_name):
            line.run(700)
            line.act(action)
        line.run(3_600)
        return line.wire, line.truths

    assert day(11) == day(11)
    assert day(11)[0] != day(12)[0]


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_an_unknown_action_is_an_error(kind_name):
    line = Line(kind_name)
    with pytest.raises(ValueError, match="fly"):
        line.act("fly")


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_events_wait_for_the_commit(kind_name):
    """Bytes that acknowledge an event are never among those written at once."""
    line = Line(kind_name, seed=5)
    seen = []
    on_bytes = line.driver.on_bytes

    def spy(data, now_ms):
        output = on_bytes(data, now_ms)
        if output.events:
            seen.append(output)
        return output

    line.driver.on_bytes = spy
    for action in quiet_actions(kind_name):
        line.act(action)
        line.run(300)
    assert seen
    assert all(output.after_commit for output in seen)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_an_uncommitted_event_comes_again(kind_name):
    """A driver that died before the commit is replaced; the hardware repeats what it was not acknowledged."""
    line = Line(kind_name, seed=5)
    line.run(5)
    line.damage = Damage(random.Random(0), drop_probability=0.0)
    lost = []
    for action in quiet_actions(kind_name):
        output = line.simulator.act(action, line.now_ms)
        lost += [truth.event_id for truth in output.truths if truth.event_id is not None]
        if lost:
            break
    assert lost
    line.driver = devices.role(kind_name, "driver").create("any")
    line._from_driver(line.driver.on_start(line.now_ms))
    line.run(300)
    arrived = Counter(event.event_id for _, event in line.events)
    assert all(arrived[event_id] == 1 for event_id in lost)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.binary(max_size=80), max_size=8), frame_type=st.integers(0, 255), body=st.binary(max_size=90))
def test_noise_is_counted_and_never_raised(kind_name, chunks, frame_type, body):
    driver = devices.role(kind_name, "driver").create("any")
    simulator_role = devices.role(kind_name, "simulator")
    site = simulator_role.sites(1, random.Random(0))[0]
    simulator = simulator_role.create("any", random.Random(0), site, STARTED_MS)
    for chunk in (*chunks, b"\x00", encode_frame(frame_type, body)):
        driver.on_bytes(chunk, STARTED_MS)
        simulator.on_bytes(chunk, STARTED_MS)
