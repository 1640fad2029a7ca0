"""A room without a network: it sounds and lights at once, and forgets nothing.

Real components: `fleet edge` as a process of its own, the room's hardware on a pseudo-terminal, no broker at all; then
a broker and the cloud, to which everything is told.
"""

import asyncio
import sqlite3
from contextlib import suppress

import msgspec
import pytest
from demo_process import needs_mosquitto

from cli.bench import edge
from cli.clock import SystemClock
from cli.processes import Child
from firmware_sim import live
from firmware_sim.pty import PseudoSerial
from firmware_sim.truth import TruthLine
from firmware_sim.world import World

LOCAL_S_MAX = 0.2
PRESSES = 5


class Ear:
    """The room's own log as it happens."""

    def __init__(self):
        self.lines = []

    def write(self, lines):
        self.lines += [msgspec.json.decode(line, type=TruthLine) for line in lines.splitlines()]

    def of(self, what):
        return [line for line in self.lines if line.what == what]


async def until(condition, within_s, what):
    for _ in range(round(within_s / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {within_s} s for {what}")


@pytest.mark.e2e
@pytest.mark.mosquitto
async def test_without_any_network_the_room_sounds_and_lights_at_once_and_the_lights_follow_the_centre_later(tmp_path):
    needs_mosquitto()
    scene, rig = edge.set_up_with_tls(
        tmp_path, edge.fleet_of({"nursing_room": 1, "bike": 0, "meal_machine": 0}, edge.SEED)
    )
    clock, ear = SystemClock(), Ear()
    world = World(("nursing_room",), {"nursing_room": 1}, edge.SEED, clock.now_ms(), edge.QUIET, truth=ear, clock=clock)
    (room,) = world.device_ids
    async with PseudoSerial(world.line(room)) as port:
        living = asyncio.get_running_loop().create_task(live.run(world, clock))
        agent: Child = edge._agent(rig, scene, room, port.path, "alone")
        agent.start()  # nobody listens on the broker's port
        try:
            await until((tmp_path / "alone" / "journal.sqlite").exists, 20, "the agent to run")
            await asyncio.sleep(0.5)
            took = []
            for number in range(PRESSES):
                world.act(room, "press")
                while len(ear.of("local_alarm")) <= number:  # the hardware's own loop, which does not sleep
                    await asyncio.sleep(0.005)
                    world.advance(clock.now_ms())
                took.append(ear.of("local_alarm")[-1].real_s - ear.of("pressed")[-1].real_s)
                (alarm,) = ear.of("local_alarm")[-1:]
                assert alarm.facts["sound"]
                assert alarm.facts["light"]
            print(f"press to local sound and light without a network: {[f'{one * 1000:.0f} ms' for one in took]}")
            moments = [
                (line.at_ms, by.at_ms) for line, by in zip(ear.of("pressed"), ear.of("local_alarm"), strict=True)
            ]
            assert max(sounded - pressed for pressed, sounded in moments) <= LOCAL_S_MAX * 1000
            assert min(took) <= LOCAL_S_MAX, "and by the real clock, of which a busy machine takes its share"
            assert ear.of("light_shown") == [], "no light of the centre without the centre"
            agent.kill()
            world.act(room, "brown_out")  # and the room's own power fails
            await until(lambda: bool(ear.of("restarted")), 15, "the room to start again")
            assert ear.of("restarted")[-1].facts["call_restored"]
            assert agent.running is False
            agent.start()
            with rig:
                await until(lambda: any(line.facts["light"] == "received" for line in ear.of("light_shown")), 40,
                            "the light of the centre")  # fmt: skip
                state = sqlite3.connect(f"file:{rig.state_file}?mode=ro", uri=True)
                stored = {row[0] for row in state.execute("SELECT event_id FROM event WHERE type = 'pressed'")}
                assert stored == {line.event_id for line in ear.of("pressed")}, (
                    "every press, also those of the dead agent"
                )
                ((call_state,),) = state.execute("SELECT state FROM call").fetchall()
                assert call_state == "calling"
                rig.cloud.kill()  # the cloud restarts: the call is still open, the light still on
                rig.cloud.start()
                rig.wait(rig.ready, 40, "the cloud to be ready again")
                assert state.execute("SELECT state FROM call").fetchall() == [("calling",)]
                assert world.snapshot(room) is not None
                world.act(room, "clear")
                await until(
                    lambda: state.execute("SELECT state FROM call").fetchall() == [("cleared",)],
                    20,
                    "the end in the room",
                )
                state.close()
        finally:
            agent.stop()
            living.cancel()
            with suppress(asyncio.CancelledError):
                await living
