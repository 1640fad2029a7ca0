"""Ingesters killed, frozen beyond their lease, added and removed while devices send; nothing may be lost or doubled.

What is compared in the end, for every device and lane: the numbers it made; the marks of its twin; its messages in the
series of all ingesters together, number and content; its events in the database, each once and in the order in which
they were made. An ingester that wakes up after others took its shards must end without having committed anything.
"""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, select

from cli.bench.ingester_rig import Ingester, IngesterRig, Journals, gaps_and_quarantined, ingester_rig
from cli.bench.journals import event_id, odometer
from cli.bench.load import DEVICES, bench_device
from cli.bench.rig import BenchError
from cloud.tables import event, shard_lease, twin
from fleet.topics import SHARD_COUNT

Fault = Literal["kill", "kill for long", "freeze", "freeze briefly", "add", "remove"]

FAULTS: Final[tuple[Fault, ...]] = ("kill", "freeze", "add", "kill for long", "remove", "freeze briefly")
"""Each comes once in every six, in an order that the seed says. `add` and `remove` are not counted as kills."""
COUNTED: Final = frozenset({"kill", "kill for long", "freeze", "freeze briefly"})
RUNNING_MIN: Final = 2
RUNNING_MAX: Final = 4
SETTLE_LEASES_MAX: Final = 4.0
SETTLE_S_MORE: Final = 40.0
FENCE_S_MAX: Final = 20.0
ARRIVE_S_MAX: Final = 180.0


@dataclass(slots=True)
class Tally:
    """What happened."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    woke_without_shards: int = 0
    fenced: int = 0
    restarts: int = 0
    takeover_s: list[float] = field(default_factory=list)


def plan(faults: int, seed: int) -> list[Fault]:
    """`faults` kills and freezes, with ingesters that come and go between them; the same for the same seed."""
    randomness = random.Random(seed)
    found: list[Fault] = []
    while sum(one in COUNTED for one in found) < faults:
        found += randomness.sample(FAULTS, len(FAULTS))
    while sum(one in COUNTED for one in found) > faults:
        found.pop()
    return found


def measure(directory: Path, *, ingesters: int, faults: int, rate: float, lease_s: float, seed: int) -> dict[str, Any]:
    """Run it. Raises BenchError when anything is lost, doubled or out of order, or somebody broke the fence."""
    devices = [bench_device(number) for number in range(DEVICES)]
    planned, randomness, tally = plan(faults, seed), random.Random(seed + 1), Tally()
    began_s = time.monotonic()
    with ingester_rig(directory, devices, {"FLEET_LEASE_S": str(lease_s)}) as rig:
        for _ in range(ingesters):
            rig.add()
        rig.wait(rig.settled, SETTLE_S_MORE, "the ingesters to share the devices")
        journals = Journals(rig.broker.port, DEVICES, rate, directory / "journals.log")
        try:
            torment = _Torment(rig, journals, tally, randomness, lease_s)
            for fault in planned:
                torment.run(fault)
            made = torment.finish()
        finally:
            journals.stop()
        found = _compare(rig, made)
    return {
        "seed": seed, "lease_s": lease_s, "faults": sum(tally.done[one] for one in COUNTED),
        **{one.replace(" ", "_"): tally.done[one] for one in FAULTS},
        "restarts": tally.restarts, "woke_without_shards": tally.woke_without_shards, "fenced": tally.fenced,
        "all_shards_worked_on_again_s_max": round(max(tally.takeover_s), 1),
        "seconds": round(time.monotonic() - began_s),
        "messages": made["made"], "resends_asked": made["resends_asked"],
        "late_acknowledgements": made["late_acknowledgements"], **found,
    }  # fmt: skip


class _Torment:
    def __init__(
        self, rig: IngesterRig, journals: Journals, tally: Tally, randomness: random.Random, lease_s: float
    ) -> None:
        self._rig = rig
        self._journals = journals
        self._tally = tally
        self._random = randomness
        self._lease_s = lease_s
        self._wanted = {one.name for one in rig.ingesters}

    def run(self, fault: Fault) -> None:
        """One fault; afterwards all shards are worked on again, whoever is still on the way back."""
        if fault == "add" and len(self._wanted) >= RUNNING_MAX:
            fault = "remove"
        elif fault == "remove" and len(self._wanted) <= RUNNING_MIN:
            fault = "add"
        ready: list[Ingester] = []  # as they were when there were enough: a moment later one may be busy again

        def enough() -> bool:
            ready[:] = self._ready()
            return len(ready) >= RUNNING_MIN

        self._pass(enough, f"enough ingesters for: {fault}")
        acknowledged = self._journals.now()["acknowledged"]
        began_s = time.monotonic()
        self._do(fault, self._random.choice(ready))
        self._tally.done[fault] += 1
        self._pass(self._at_work, f"all shards to be worked on after: {fault}")
        self._tally.takeover_s.append(time.monotonic() - began_s)
        self._progress(acknowledged)

    def _ready(self) -> list[Ingester]:
        self._supervise()
        return [one for one in self._rig.running if one.ready()]

    def _at_work(self) -> bool:
        held, ready = self._rig.holders(), {one.name for one in self._ready()}
        return sum(held.values()) == SHARD_COUNT and held.keys() <= ready

    def _settled(self) -> bool:
        self._supervise()
        return self._rig.settled()

    def _progress(self, acknowledged: int) -> None:
        """A fault on ingesters that have nothing to do would prove nothing."""
        self._rig.wait(lambda: self._journals.now()["acknowledged"] > acknowledged, 30, "messages to be acknowledged")

    def _do(self, fault: Fault, victim: Ingester) -> None:
        match fault:
            case "kill":
                victim.child.kill()
                victim.child.start()
            case "kill for long":
                victim.child.kill()
                self._pass(self._taken_from(victim), "its shards to be taken over")
                victim.child.start()
            case "freeze":
                self._freeze(victim)
            case "freeze briefly":
                victim.signal(signal.SIGSTOP)
                time.sleep(self._random.uniform(0.1, 0.5) * self._lease_s)
                victim.signal(signal.SIGCONT)
            case "add":
                away = [one for one in self._rig.ingesters if one.name not in self._wanted]
                if away and self._random.random() < 0.5:  # one that was here before, or a new one
                    away[0].child.start()
                    self._wanted.add(away[0].name)
                else:
                    self._wanted.add(self._rig.add().name)
            case "remove":
                self._wanted.discard(victim.name)
                victim.child.stop()

    def _freeze(self, victim: Ingester) -> None:
        """It sleeps amid its work until others have all of its shards, and must not commit when it wakes."""
        victim.was_fenced()  # what its log said of earlier days
        victim.signal(signal.SIGSTOP)
        self._pass(self._taken_from(victim), "the shards of a frozen ingester to be taken over")
        victim.signal(signal.SIGCONT)
        self._tally.woke_without_shards += 1
        self._pass(lambda: not victim.child.running, "an ingester that lost its shards to end", FENCE_S_MAX)
        if not victim.was_fenced():
            raise BenchError(f"{victim.name} lost its shards and ended otherwise: {victim.child.last_words(3)}")
        self._tally.fenced += 1

    def _taken_from(self, victim: Ingester) -> Callable[[], bool]:
        def taken() -> bool:
            self._supervise(but=victim)
            owners = self._rig.read(
                lambda tx: tx.scalars(select(shard_lease.c.owner).where(shard_lease.c.shard < SHARD_COUNT)).all()
            )
            return victim.owner not in owners

        return taken

    def _pass(self, holds: Callable[[], bool], what: str, limit_s: float | None = None) -> None:
        self._rig.wait(holds, limit_s or SETTLE_LEASES_MAX * self._lease_s + SETTLE_S_MORE, what)

    def _supervise(self, but: Ingester | None = None) -> None:
        """Start again what ended and should run, as systemd or Docker would."""
        for one in self._rig.ingesters:
            if one.name in self._wanted and one is not but and not one.child.running:
                one.child.start()
                self._tally.restarts += 1

    def finish(self) -> dict[str, Any]:
        """Everything made is acknowledged; those that were removed come back to drain what they hold."""
        self._journals.end()

        def all_acknowledged() -> bool:
            self._supervise()
            return "per_device" in self._journals.now()

        self._rig.wait(all_acknowledged, ARRIVE_S_MAX, "every message to be acknowledged")
        made = self._journals.now()
        if made["acknowledged"] != made["made"]:
            raise BenchError(f"{made['made'] - made['acknowledged']} messages were never acknowledged")
        for one in self._rig.ingesters:
            self._wanted.add(one.name)
        self._rig.wait(self._settled, ARRIVE_S_MAX, "all ingesters to be back")
        return made


# --- what was taken, against what was made ---------------------------------------------------------------------


def _compare(rig: IngesterRig, made: dict[str, Any]) -> dict[str, Any]:
    per_device: dict[str, list[int]] = made["per_device"]
    expected = sum(telemetry for telemetry, _ in per_device.values())
    found: dict[str, dict[int, list[str]]] = {}

    def complete() -> bool:
        nonlocal found
        found = rig.series()
        return sum(len(messages) for messages in found.values()) >= expected

    rig.wait(complete, ARRIVE_S_MAX, "the series to hold what was sent", every_s=1.0)
    lost, doubled, repeated = compare_series(per_device, found)
    marks, events = rig.read(_marks), rig.read(_events)
    wrong_marks = sum(marks.get(device_id) != (*made_both,) for device_id, made_both in per_device.items())
    for device_id, (_, count) in per_device.items():
        ids = [one for _, one in events.get(device_id, [])]
        seqs = [seq for seq, _ in events.get(device_id, [])]
        lost += len({event_id(device_id, seq) for seq in range(1, count + 1)} - set(ids))
        doubled += len(ids) - len(set(ids))
        if seqs != sorted(seqs):
            raise BenchError(f"events of {device_id} were taken out of order: {seqs[:20]}")
    gaps, quarantined = rig.read(gaps_and_quarantined)
    if lost or doubled or wrong_marks or gaps or quarantined or made["refused"]:
        raise BenchError(
            f"{lost} lost, {doubled} doubled, {wrong_marks} devices with another mark, {gaps} gaps, {quarantined} set "
            f"aside, {made['refused']} refused"
        )
    return {
        "telemetry": expected, "events": sum(count for _, count in per_device.values()), "lost": lost,
        "doubled": doubled, "out_of_order": 0, "same_point_in_two_series": repeated,
    }  # fmt: skip


def compare_series(
    per_device: dict[str, list[int]], found: dict[str, dict[int, list[str]]]
) -> tuple[int, int, int]:  # fmt: skip
    """(lost, doubled, the same point from two ingesters) of telemetry; the last is one point in a shared series.

    Raises:
        BenchError: a number stands beside another message's content.
    """
    lost = doubled = repeated = 0
    for device_id, (made, _) in per_device.items():
        messages = found.get(device_id, {})
        lost += made - sum(seq in messages for seq in range(1, made + 1))
        doubled += sum(seq > made for seq in messages)
        moments = set()
        for seq, points in messages.items():
            doubled += len(set(points)) - 1
            repeated += len(points) - len(set(points))
            at, _, fields = points[0].partition(" ")
            moments.add(at)
            if msgspec.json.decode(fields)["odometer_metres"] != odometer(seq):
                raise BenchError(f"message {seq} of {device_id} stands in the series with another one's content")
        doubled += len(messages) - len(moments)
    return lost, doubled, repeated


def _marks(tx: Connection) -> dict[str, tuple[int, int]]:
    rows = tx.execute(select(twin.c.device_id, twin.c.telemetry_seq, twin.c.event_seq))
    return {row.device_id: (row.telemetry_seq, row.event_seq) for row in rows}


def _events(tx: Connection) -> dict[str, list[tuple[int, str]]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for row in tx.execute(select(event.c.device_id, event.c.seq, event.c.event_id).order_by(event.c.id)):
        found.setdefault(row.device_id, []).append((row.seq, row.event_id))
    return found
