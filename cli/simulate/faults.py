"""What breaks, when, and for how long: drawn from the seed, one fault after the other, several at a time.

Every fault is a coroutine that breaks something, waits and mends it. `end` mends everything, so that the run can be
asked whether it comes to rest.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

from cli.simulate.attacks import Attacks, can_press
from cli.simulate.machines import EdgeBox, Machine
from fleet.milestones import MILESTONES

if TYPE_CHECKING:
    from cli.simulate.simulation import Simulation

YEAR_S: Final = 365 * 86_400.0
_LATENCY_S: Final = 0.02
_COUNTDOWN_MAX: Final = 12
_ALSO: Final = 0.5
_MOMENTS_S: Final = (0.01, 0.1, 1.0)
_STEPS_S: Final = (2.0, 90.0, 4_000.0, 86_400.0, 10 * YEAR_S)


class Faults:
    """The schedule of one run."""

    def __init__(self, simulation: "Simulation") -> None:
        self.ended = False
        self._simulation = simulation
        self._randomness = simulation.randomness("faults")
        self._armed: dict[str, int] = {}
        """Milestone → how often it is still passed before it kills."""
        attacks = Attacks(simulation, self._randomness)
        self._weighted: tuple[tuple[int, Callable[[], Coroutine[None, None, None]]], ...] = (
            (8, self.kill_around_a_press), (6, self.kill_box),
            (6, self.kill_cloud), (16, self.kill_at_milestone), (3, self.kill_broker),
            (4, self.reset_some), (4, self.cut_some), (4, self.no_network), (2, self.flap), (3, self.slow_network),
            (6, self.odd_messages), (2, self.set_box_clock), (1, self.set_cloud_clock), (6, self.fill_box),
            (2, self.fill_cloud), (3, self.series_down), (3, self.receiver_down), (2, self.lose_storage),
            (2, self.play_back_copy), (1, self.damage_journal), (7, attacks.late_order), (3, attacks.old_words),
        )  # fmt: skip
        if simulation.plan.adversarial:
            simulation.weather.latency_s = _LATENCY_S
            simulation.broker.wiretap.listening = True

    # --- schedule ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        plan = self._simulation.plan
        if not plan.fault_every_s:
            return
        deck = [fault for weight, fault in self._weighted for _ in range(weight)]
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._randomness.expovariate(1 / plan.fault_every_s))
                fault = self._randomness.choice(deck)
                self._simulation.trace.note("fault", fault.__name__)
                group.create_task(fault())

    def end(self) -> None:
        """Mend everything."""
        simulation = self._simulation
        self.ended = True
        self._armed.clear()
        self._calm()
        simulation.broker.unreachable.clear()
        simulation.broker.wiretap.withheld.clear()
        if not simulation.broker.up:
            simulation.broker.start()
        simulation.series.down = simulation.receiver_down = simulation.receiver_hangs = False
        for machine in (simulation.cloud, *simulation.boxes):
            machine.disk.full = False
        for box in simulation.boxes:
            box.fill(full=False)
        simulation.trace.note("faults_ended")

    def is_fatal(self, machine: Machine, milestone: str) -> bool:
        """Whether this process dies here."""
        del machine
        left = self._armed.get(milestone)
        if left is None:
            return False
        if left > 0:
            self._armed[milestone] = left - 1
            return False
        del self._armed[milestone]
        if milestone.startswith(("ingest.", "drain.", "dispatch.")):
            self._simulation.disturbed(60.0)
        return True

    def restart_s(self) -> float:
        """Mostly soon, sometimes not."""
        draw = self._randomness.random()
        return 0.5 + 3.0 * draw if draw < 0.8 else 60.0 * (draw - 0.7)

    def _box(self) -> EdgeBox:
        return self._randomness.choice(self._simulation.boxes)

    def _some_devices(self, share: float = 0.3) -> list[str]:
        return [one for one in self._simulation.world.device_ids if self._randomness.random() < share]

    async def _for(self, low_s: float, high_s: float) -> None:
        await asyncio.sleep(self._randomness.uniform(low_s, high_s))

    # --- processes -----------------------------------------------------------------------------------------------

    async def kill_box(self) -> None:
        """SIGKILL of an edge box."""
        self._box().kill(self.restart_s())

    async def kill_cloud(self) -> None:
        """SIGKILL of the cloud's process."""
        restart_s = self.restart_s()
        self._simulation.disturbed(restart_s + 60.0)
        self._simulation.cloud.kill(restart_s)

    async def kill_at_milestone(self) -> None:
        """SIGKILL at a named point, after it was passed a few times."""
        name = self._randomness.choice(sorted(MILESTONES))
        self._armed[name] = self._randomness.randint(0, _COUNTDOWN_MAX)

    async def kill_around_a_press(self) -> None:
        """Somebody presses, and what carries the press dies within the next moments."""
        simulation, randomness = self._simulation, self._randomness
        boxes = [(box, one) for box in simulation.boxes for one in box.device_ids if can_press(simulation, one)]
        if not boxes:
            return
        box, device_id = randomness.choice(boxes)
        simulation.world.act(device_id, "press")
        await self._for(0.0, randomness.choice(_MOMENTS_S))
        if randomness.random() < _ALSO:
            box.kill(self.restart_s())
        else:
            await self.kill_cloud()

    async def kill_broker(self) -> None:
        """It dies with everything in it."""
        broker = self._simulation.broker
        if not broker.up:
            return
        broker.kill()
        await self._for(0.5, 20.0)
        broker.start()

    # --- network -------------------------------------------------------------------------------------------------

    async def reset_some(self) -> None:
        """Connections break."""
        for device_id in self._some_devices():
            self._simulation.broker.reset(device_id)

    async def cut_some(self) -> None:
        """Connections go dead."""
        for device_id in self._some_devices():
            self._simulation.broker.cut(device_id)

    async def no_network(self) -> None:
        """Devices out of reach for a while."""
        broker = self._simulation.broker
        chosen = self._some_devices(0.2)
        for device_id in chosen:
            broker.cut(device_id)
            broker.unreachable.add(device_id)
        await self._for(20.0, 400.0)
        broker.unreachable.difference_update(chosen)

    async def flap(self) -> None:
        """One device's link goes and comes once a second."""
        simulation = self._simulation
        device_id = self._randomness.choice(simulation.world.device_ids)
        for _ in range(self._randomness.randint(20, 60)):
            simulation.broker.reset(device_id)
            await asyncio.sleep(1.0)

    async def slow_network(self) -> None:
        """Everything takes long, some of it very long."""
        weather = self._simulation.weather
        weather.latency_s = self._randomness.uniform(0.1, 2.0)
        weather.latency_s_tail = self._randomness.uniform(1.0, 15.0)
        await self._for(20.0, 90.0)
        self._calm()

    async def odd_messages(self) -> None:
        """Messages come twice, cut off, not at all; old ones come again; some are forged."""
        weather, randomness = self._simulation.weather, self._randomness
        for name, most in (
            ("duplicated", 0.4),
            ("truncated", 0.15),
            ("dropped", 0.4),
            ("replayed", 0.5),
            ("forged", 0.5),
        ):
            setattr(weather, name, most * randomness.random() if randomness.random() < 0.6 else 0.0)
        await self._for(20.0, 120.0)
        self._calm()

    def _calm(self) -> None:
        weather = self._simulation.weather
        weather.latency_s = _LATENCY_S if self._simulation.plan.adversarial else 0.0
        weather.latency_s_tail = weather.duplicated = weather.truncated = weather.dropped = 0.0
        weather.replayed = weather.forged = 0.0

    # --- clocks --------------------------------------------------------------------------------------------------

    async def set_box_clock(self) -> None:
        """Somebody sets a box's clock, by seconds or by years."""
        step_s = self._randomness.choice(_STEPS_S) * self._randomness.uniform(-1.0, 1.0)
        self._box().clock.jump(step_s)

    async def set_cloud_clock(self) -> None:
        """The cloud's clock is set, and set right again."""
        simulation = self._simulation
        step_s = self._randomness.choice(_STEPS_S[:3]) * self._randomness.uniform(-1.0, 1.0)
        simulation.cloud_clock_off_s += abs(step_s)
        simulation.disturbed(120.0)
        simulation.cloud.clock.jump(step_s)
        await self._for(30.0, 200.0)
        simulation.disturbed(120.0)
        simulation.cloud.clock.jump(-step_s)

    # --- disks ---------------------------------------------------------------------------------------------------

    async def fill_box(self) -> None:
        """The disk of a box is full; perhaps nobody can be reached either, perhaps the box dies of it."""
        box, broker = self._box(), self._simulation.broker
        alone = box.device_ids if self._randomness.random() < _ALSO else ()
        for device_id in alone:
            broker.cut(device_id)
            broker.unreachable.add(device_id)
        box.fill(full=True, entirely=self._randomness.random() < _ALSO)
        self._press_at(box)
        await self._for(5.0, 120.0)
        if self._randomness.random() < _ALSO:
            box.kill(self.restart_s())
        box.fill(full=False)
        await self._for(0.0, 20.0)
        broker.unreachable.difference_update(alone)

    def _press_at(self, box: EdgeBox) -> None:
        for device_id in box.device_ids:
            if self._randomness.random() < _ALSO and can_press(self._simulation, device_id):
                self._simulation.world.act(device_id, "press")

    async def fill_cloud(self) -> None:
        """The disk of the cloud is full."""
        disk = self._simulation.cloud.disk
        seconds = self._randomness.uniform(2.0, 60.0)
        self._simulation.disturbed(seconds + 60.0)
        disk.full = True
        await asyncio.sleep(seconds)
        disk.full = False

    async def lose_storage(self) -> None:
        """A box gets a new disk."""
        box = self._box()
        if box.alive:
            self._simulation.oracle.gone_with(box)
            box.kill(self.restart_s(), keep_disk=False)

    async def play_back_copy(self) -> None:
        """A box is set back to a copy of its disk from a while ago."""
        box = self._box()
        if not box.alive:
            return
        copy, kills = box.disk.take_copy(), box.kills
        await self._for(5.0, 120.0)
        if box.kills != kills or box.host is None:
            return
        self._simulation.oracle.gone_with(box)
        self._simulation.oracle.rolled_back.update(box.device_ids)
        box.kill(self.restart_s())
        box.disk.restore(copy)

    async def damage_journal(self) -> None:
        """A power cut leaves a page of rubbish in a journal."""
        box = self._box()
        if not box.alive:
            return
        self._simulation.oracle.gone_with(box)
        self._simulation.oracle.rolled_back.update(box.device_ids)
        box.kill(self.restart_s())
        path = box.disk.folder / "journal.sqlite"
        if path.exists() and (size := path.stat().st_size) > 8_192:
            with path.open("r+b") as file:
                file.seek(self._randomness.randint(1, size // 4_096 - 1) * 4_096)
                file.write(self._randomness.randbytes(2_048))

    # --- the other side ------------------------------------------------------------------------------------------

    async def series_down(self) -> None:
        """The series takes nothing."""
        self._simulation.series.down = True
        await self._for(5.0, 300.0)
        self._simulation.series.down = False

    async def receiver_down(self) -> None:
        """The receiver refuses, or does not answer."""
        simulation = self._simulation
        name = self._randomness.choice(("receiver_down", "receiver_hangs"))
        seconds = self._randomness.uniform(2.0, 40.0)
        simulation.disturbed(seconds + 30.0)
        setattr(simulation, name, True)
        await asyncio.sleep(seconds)
        setattr(simulation, name, False)
