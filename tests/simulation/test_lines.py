"""Lines: their faults, the pseudo-terminal, and the loop that keeps them busy in real time."""

import asyncio
import os
import random
from pathlib import Path

import pytest
from driven import CALM, CLEAN, STARTED_MS, Edge

import devices
from firmware_sim import live
from firmware_sim.line import FaultRates, LineFault, MemoryLine
from firmware_sim.pty import BUFFER_BYTES_MAX, PseudoSerial
from firmware_sim.scenario import Happening, Scenario
from firmware_sim.truth import TruthMemory
from firmware_sim.world import World
from fleet.clock import ManualClock


def test_a_line_has_one_listener():
    line = MemoryLine("room-001", lambda _: None)
    line.attach(lambda _: None)
    with pytest.raises(RuntimeError, match="taken"):
        line.attach(lambda _: None)
    line.detach()
    line.deliver(b"123")
    assert line.unheard_bytes == 3


def damaged(seed, rates, chunks):
    fault = LineFault(rates, random.Random(seed))
    return b"".join(fault.apply(chunk)[0] for chunk in chunks), fault.damaged_bytes


def test_line_faults_do_not_depend_on_how_the_stream_is_cut():
    stream = random.Random(1).randbytes(50_000)
    rates = FaultRates(dropped_per_million=2_000, corrupted_per_million=4_000)
    whole, faults = damaged(7, rates, [stream])
    cut = [stream[start : start + 17] for start in range(0, len(stream), 17)]
    assert damaged(7, rates, cut) == (whole, faults)
    assert 200 < faults < 400
    assert 60 < len(stream) - len(whole) < 150
    assert damaged(8, rates, [stream])[0] != whole


def test_a_corrupted_byte_differs_in_one_bit_and_a_clean_line_changes_nothing():
    stream = bytes(1_000)
    arrived, faults = damaged(1, FaultRates(corrupted_per_million=1_000_000), [stream])
    assert faults == len(arrived) == 1_000
    assert {byte.bit_count() for byte in arrived} == {1}
    assert damaged(1, FaultRates(), [stream]) == (stream, 0)
    assert damaged(1, FaultRates(dropped_per_million=1_000_000), [stream]) == (b"", 1_000)


async def test_the_live_loop_follows_the_clock():
    clock = ManualClock(STARTED_MS, speed=60.0)
    reached = asyncio.Event()

    class Sink(TruthMemory):
        def write(self, lines):
            super().write(lines)
            if self.content.count(b"\n") >= 50:
                reached.set()

    world = World(["nursing_room"], {"nursing_room": 10}, 1, STARTED_MS, CLEAN, truth=Sink(), clock=clock)
    clock.advance(seconds=120)
    task = asyncio.get_running_loop().create_task(live.run(world, clock))
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert max(line.at_ms for line in world.truth.lines()) <= clock.now_ms()


def test_the_live_loop_sleeps_until_the_next_due_time_in_real_seconds():
    clock = ManualClock(STARTED_MS, speed=60.0)
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN, clock=clock)
    ahead_s = (world.next_due_ms - STARTED_MS) / 1_000
    assert live.pause_s(world, clock) == pytest.approx(max(live.PAUSE_S_MIN, ahead_s / 60))
    clock.advance(seconds=86_400)
    assert live.pause_s(world, clock) == live.PAUSE_S_MIN
    nobody = World([], {}, 1, STARTED_MS, CLEAN, clock=clock)
    assert live.pause_s(nobody, clock) == live.PAUSE_S_MAX


class TickingClock(ManualClock):
    """Every look at it takes a second."""

    def now_ms(self):
        self.advance(seconds=1)
        return super().now_ms()


async def test_settling_waits_for_what_the_hardware_keeps_and_gives_up_at_its_limit():
    clock = TickingClock(STARTED_MS)
    scenario = Scenario(
        name="presses", description="", happenings=(Happening(action="press", every_s=1, first_s=1),), facts=CALM
    )
    world = World(["nursing_room"], {"nursing_room": 3}, 1, STARTED_MS, scenario, clock=clock)
    while world.unacknowledged_events == 0:
        world.advance(clock.now_ms())
    assert not await live.settle(world, clock, within_s=3), "nobody takes the events"
    pressed = [line for line in world.truth.lines() if line.what == "pressed"]
    edge = Edge(world)
    assert await live.settle(world, clock, within_s=60)
    assert sorted(event.event_id for _, _, event in edge.events) == sorted(line.event_id for line in pressed)


async def test_a_room_on_a_pseudo_terminal_talks_to_a_driver_at_the_other_end(tmp_path):
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, CLEAN)
    driver = devices.role("nursing_room", "driver").create("room-001")
    events, idle = [], asyncio.Event()
    link = tmp_path / "room"
    async with PseudoSerial(world.line("room-001"), link) as port:
        assert link.readlink() == Path(port.path)
        descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

        def on_readable():
            output = driver.on_bytes(os.read(descriptor, 4_096), world.now_ms)
            events.extend(event.type for _, event in output.events)
            os.write(descriptor, output.to_hardware + output.after_commit)
            if output.readings and not world.snapshot("room-001")["unacknowledged_events"]:
                idle.set()
            elif len(events) == 1:
                os.write(descriptor, driver.on_start(world.now_ms).to_hardware)

        asyncio.get_running_loop().add_reader(descriptor, on_readable)
        world.act("room-001", "press")
        await asyncio.wait_for(idle.wait(), 10)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        assert port.lost_bytes == 0
    assert events == ["pressed"]
    assert not link.exists()
    assert not world.line("room-001").attached


async def test_a_pseudo_terminal_that_nobody_reads_loses_bytes_and_counts_them():
    line = MemoryLine("room-001", lambda _: None)
    async with PseudoSerial(line) as port:
        for _ in range(200):
            line.deliver(bytes(1_000))
        assert 200_000 - BUFFER_BYTES_MAX - 70_000 < port.lost_bytes < 200_000 - BUFFER_BYTES_MAX
