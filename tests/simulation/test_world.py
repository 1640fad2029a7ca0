"""The simulated world: one seed gives one world, and the truth is written before anybody can see it."""

import subprocess
import sys
from collections import Counter

import pytest
from driven import CLEAN, KINDS, STARTED_MS, THIRTY, Edge

import devices
from firmware_sim.demand import HOUR_MS
from firmware_sim.line import FaultRates
from firmware_sim.scenario import Scenario, scenario_named
from firmware_sim.truth import TruthFile, decode_lines
from firmware_sim.world import STALLED_STEPS_MAX, World, WorldError
from fleet.clock import ManualClock
from fleet.kind import SimulatorOutput, Site


def an_hour(seed, step_ms=HOUR_MS):
    world = World(KINDS, THIRTY, seed, STARTED_MS, "demo")
    edge = Edge(world)
    for until_ms in range(STARTED_MS + step_ms, STARTED_MS + HOUR_MS + 1, step_ms):
        world.run_virtual(until_ms)
    return bytes(world.truth.content), edge


def test_the_same_seed_gives_the_same_hour_and_another_seed_another():
    (log, edge), (again, edge_again), (other, other_edge) = an_hour(1), an_hour(1), an_hour(2)
    assert log == again
    assert edge.wire == edge_again.wire
    assert log != other
    assert edge.wire != other_edge.wire


def test_the_hour_does_not_depend_on_the_steps_in_which_time_is_advanced():
    (log, edge), (stepped, stepped_edge) = an_hour(3), an_hour(3, step_ms=10_000)
    without_real_time = [[line.at_ms, line.device_id, line.what, line.facts] for line in decode_lines(log)]
    assert [[line.at_ms, line.device_id, line.what, line.facts] for line in decode_lines(stepped)] == without_real_time
    assert edge.wire == stepped_edge.wire


def test_every_event_of_a_troubled_hour_arrives_exactly_once():
    world = World(KINDS, THIRTY, 5, STARTED_MS, "demo")
    edge = Edge(world)
    world.run_virtual(STARTED_MS + HOUR_MS)
    quiet_down(world)
    lines = world.truth.lines()
    told = Counter(line.event_id for line in lines if line.event_id is not None)
    assert max(told.values()) == 1
    assert Counter(event.event_id for _, _, event in edge.events) == told
    assert {line.kind for line in lines if line.event_id is not None} == set(KINDS)
    assert world.damaged_bytes > 0


def quiet_down(world):
    """Let the hardware repeat what the lines lost, until nothing is unacknowledged."""
    for _ in range(600):
        if not any(world.snapshot(device_id).get("unacknowledged_events") for device_id in world.device_ids):
            return
        world.run_virtual(world.now_ms + 1_000)
    raise AssertionError("the hardware still has unacknowledged events after ten minutes")


def test_readings_on_intact_lines_arrive_with_the_values_of_the_log():
    world = World(["nursing_room"], {"nursing_room": 5}, 1, STARTED_MS, CLEAN)
    edge = Edge(world)
    world.run_virtual(STARTED_MS + HOUR_MS)
    told = [(line.device_id, line.facts) for line in world.truth.lines() if line.what == "reading"]
    assert told == [(device_id, reading.model_dump()) for device_id, reading in edge.readings]
    assert len(told) >= 5 * 240


def test_the_truth_is_on_disk_before_the_bytes_are_delivered(tmp_path):
    path = tmp_path / "truth.jsonl"
    seen = []
    with TruthFile(path) as truth:
        world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN, truth=truth)
        world.line("room-001").attach(lambda _: seen.append(decode_lines(path.read_bytes())[-1].at_ms))
        world.act("room-001", "press")
        assert seen == [STARTED_MS]
        world.run_virtual(STARTED_MS + 60_000)
    assert len(seen) > 4
    lines = decode_lines(path.read_bytes())
    assert [line.what for line in lines[:3]] == ["pressed", "reading", "local_alarm"]
    assert decode_lines(path.read_bytes()[:-5]) == lines[:-1], "half a line of a killed writer is left out"


def test_the_log_says_what_became_of_the_bytes():
    broken = Scenario(name="broken", description="", line_faults=FaultRates(corrupted_per_million=1_000_000))
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, broken)
    world.act("room-001", "press")
    world.line("room-001").attach(lambda _: None)
    world.act("room-001", "remove_cord")
    world.act("room-001", "open_fridge_door")
    states = {line.what: line.line for line in world.truth.lines()}
    assert states["pressed"] == "unattached"
    assert states["cord_removed"] == "damaged"
    assert states["fridge_door_opened"] == "silent"


def test_real_seconds_come_from_the_clock_that_was_given():
    clock = ManualClock(STARTED_MS, speed=60.0)
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN, clock=clock)
    clock.advance(seconds=120)
    (pressed, *_) = world.act("room-001", "press")
    assert pressed.at_ms == STARTED_MS + 120_000
    assert world.truth.lines()[-1].real_s == 2.0
    with pytest.raises(WorldError, match="virtual"):
        world.run_virtual(STARTED_MS + HOUR_MS)


def test_a_clock_set_back_does_not_turn_the_world_back():
    clock = ManualClock(STARTED_MS)
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN, clock=clock)
    clock.advance(seconds=600)
    world.advance(clock.now_ms())
    clock.jump(seconds=-86_400)
    (pressed, *_) = world.act("room-001", "press")
    assert pressed.at_ms == STARTED_MS + 600_000


def test_a_slice_ends_after_so_many_steps_and_the_next_goes_on():
    whole, sliced = (World(KINDS, THIRTY, 1, STARTED_MS, "demo") for _ in range(2))
    whole.advance(STARTED_MS + 600_000)
    slices = 1
    while not sliced.advance(STARTED_MS + 600_000, steps_max=7):
        slices += 1
    assert slices > 10
    assert sliced.truth.content == whole.truth.content


def test_a_driver_that_answers_at_once_is_served_after_the_delivery():
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN)
    order = []
    line = world.line("room-001")

    def to_driver(_):
        order.append("in")
        if len(order) < 6:
            line.from_driver(devices.role("nursing_room", "frames").encode_status_request())
        order.append("out")

    line.attach(to_driver)
    world.act("room-001", "press")
    assert order[:4] == ["in", "out", "in", "out"]


def test_driver_and_hardware_that_never_stop_answering_are_an_error(monkeypatch):
    monkeypatch.setattr("firmware_sim.world.INBOX_CHUNKS_MAX", 50)
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN)
    line = world.line("room-001")
    request = devices.role("nursing_room", "frames").encode_status_request()
    line.attach(lambda _: line.from_driver(request))
    with pytest.raises(WorldError, match="without end"):
        world.act("room-001", "press")


class Stuck:
    """A simulator that is due for ever."""

    ACTIONS = ()
    next_due_ms = STARTED_MS

    def advance(self, _):
        return SimulatorOutput()


def test_a_simulator_that_does_not_get_on_is_an_error(monkeypatch):
    class Role:
        sites = staticmethod(lambda count, _: [Site(0, 0, "x")] * count)
        create = staticmethod(lambda *_: Stuck())

    monkeypatch.setattr(devices, "role", lambda *_: Role)
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN)
    with pytest.raises(WorldError, match="room-001"):
        world.advance(STARTED_MS)
    assert world.steps > STALLED_STEPS_MAX


def test_an_unknown_device_action_or_scenario_is_named():
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN)
    with pytest.raises(WorldError, match="room-999"):
        world.act("room-999", "press")
    with pytest.raises(ValueError, match="fly"):
        world.act("room-001", "fly")
    with pytest.raises(ValueError, match="demo"):
        scenario_named("nightmare")


def test_importing_the_world_loads_neither_edge_nor_cloud():
    script = "import firmware_sim.world, firmware_sim.live, firmware_sim.pty, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "firmware_sim.world" in loaded
    assert not [name for name in loaded if name.split(".")[0] in {"edge", "cloud", "dashboards", "cli", "sqlalchemy"}]
