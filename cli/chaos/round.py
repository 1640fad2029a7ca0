"""One round: a fresh company, its faults, quiet, and the comparison."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli.chaos import ladder, oracle, plan
from cli.chaos.oracle import Finding
from cli.chaos.people import People
from cli.chaos.processes import Death
from cli.chaos.promises import LOGGED_IN_FULL
from cli.chaos.scene import Scene, Setting
from cli.chaos.torment import Deed, Tormentor
from cli.demo import holdings
from cli.demo.people import new_lines
from cloud.adapters.sql.database import SqlDatabase
from fleet.milestones import MILESTONES

SETTLE_S_MAX: Final = 180.0
READINGS_DUE_WITHIN_BUSINESS_S: Final = 30.0
CALM_BEFORE_S: Final = 2.0
SPELL_ROUND_S: Final = 5.0
"""A spell and the pause before it take at least about so long."""


@dataclass(slots=True)
class RoundResult:
    """What one round showed; added up by the command."""

    seed: int
    deed: Deed
    findings: Mapping[str, Finding]
    latencies_ms: Sequence[float]
    points: int
    recovered_s_max: float
    complaints: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is done in a round."""

    kills: int
    faults: tuple[str, ...]
    scenario: str = "everything"
    seconds_min: float = 0.0


async def run_round(
    setting: Setting, program: Program, directory: Path, *, on_progress: Callable[[str, int], None]
) -> RoundResult:
    """Raises ChaosError when it can't be carried out."""
    on_progress("starting", 0)
    async with Scene(setting, directory) as scene:
        kills = _kills(scene, program)
        names = [name for name in program.faults if _spell_possible(name, scene)]
        count = max(len(names), program.kills, round(program.seconds_min / SPELL_ROUND_S))
        spells = plan.plan_spells(setting.seed, names, count)
        done = 0

        def killed() -> None:
            nonlocal done
            done += 1
            on_progress(f"{done} of {program.kills} kills", done)

        tormentor = Tormentor(scene, setting.seed, killed)
        people = People(scene)
        playing = asyncio.create_task(people.run())
        began_s = time.monotonic()
        try:
            await asyncio.sleep(CALM_BEFORE_S)
            await tormentor.run(
                kills, spells, seconds_min=program.seconds_min, bad_link=plan.SCENARIOS[program.scenario].bad_link
            )
            healed_s = time.monotonic()
            scene.tell("healed")
            on_progress("waiting until everything is whole again", done)
            await scene.wait(scene.whole, "everything to recover")
            recovered_s = time.monotonic() - healed_s
            scene.tell("whole", after_s=round(recovered_s, 2))
        finally:
            playing.cancel()
            await asyncio.wait({playing})
        if not playing.cancelled() and (error := playing.exception()) is not None:
            raise error
        on_progress("comparing", done)
        result = await _compare(scene, tormentor.deed, people, setting.seed, began_s)
        result.recovered_s_max = max([recovered_s, *tormentor.deed.recovered_s])
        planned = {kill.point for kill in kills if kill.point in MILESTONES}
        for name in sorted(planned - set(tormentor.deed.hits)):
            result.complaints.append(f"the crash point {name} was never hit")
        for death in scene.supervisor.deaths:
            if death.by_itself and not _had_no_disk(death, scene, tormentor.deed):
                result.complaints.append(f"{death.victim} ended by itself; see {death.victim}.log")
        if scene.disks_refused:
            tormentor.deed.not_injected["full disks"] = scene.disks_refused
        return result


def _had_no_disk(death: Death, scene: Scene, deed: Deed) -> bool:
    return death.victim in scene.http_ports and any(
        began_s <= death.at_s <= ended_s for began_s, ended_s in deed.cloud_disk_full_s
    )


def _kills(scene: Scene, program: Program) -> list[plan.Kill]:
    scenario, seed = plan.SCENARIOS[program.scenario], scene.setting.seed
    if scenario.victims:
        return plan.kills_of(scenario, seed, program.kills)
    points = [name for name in MILESTONES if _possible(name, scene)]
    return plan.plan_kills(seed, program.kills, roles=bool(scene.setting.database_url), points=points)


def _possible(name: str, scene: Scene) -> bool:
    if name.startswith("edge.command"):
        return any(kind == "bike" for kind, _ in scene.fleet.values())
    return True


def _spell_possible(name: str, scene: Scene) -> bool:
    if name.startswith("disk_"):
        return scene.disks[name.removeprefix("disk_")].mounted
    return name != "series" or scene.series is not None


async def _compare(scene: Scene, deed: Deed, people: People, seed: int, began_s: float) -> RoundResult:
    """`began_s`: presses before it, while the scene was being set up, are counted, but their times mean nothing."""
    until_ms = scene.clock.now_ms()
    scene.stand_still()
    database = SqlDatabase(scene.database_url)
    deadline_s = time.monotonic() + SETTLE_S_MAX
    try:
        while True:
            truth, _ = new_lines(scene.stage.truth_file, 0)
            notices, _ = new_lines(scene.stage.receiver_file, 0)
            stored = await asyncio.to_thread(oracle.look, database)
            settled = scene.world_statistics().get("settled", False)
            pending = sum(sum(scene.statistics(host).get("pending", {"": 1}).values()) for host in scene.hosts)
            late = ladder.overdue(ladder.steps_of(stored.steps), scene.clock.now_ms())
            if settled and not pending and not late and oracle.arrived(truth, stored, notices):
                break
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.5)
    finally:
        database.close()
    scene.tell("settled")
    if scene.series is not None:
        readings = await scene.series.readings(LOGGED_IN_FULL)
    else:
        readings = await asyncio.to_thread(holdings.read_readings, scene.stage.series_file, LOGGED_IN_FULL)
    due_ms = until_ms - round(READINGS_DUE_WITHIN_BUSINESS_S * 1000)
    findings, latencies = await asyncio.to_thread(
        lambda: oracle.judge(
            truth,
            stored,
            notices,
            readings,
            windows=deed.windows,
            wrong_clocks=deed.wrong_clocks,
            full_until_s=deed.full_until_s,
            until_ms=due_ms,
            ordered=people.ordered,
        )
    )
    steps = ladder.steps_of(stored.steps)
    cleared = {line["event_id"] for line in truth if line["what"] == "cleared_at_origin"}
    findings["calls"] = ladder.judge(
        steps, stored.call_states, cleared, clocks_jumped=bool(deed.spells.get("clock_cloud"))
    )
    findings["calls"].lost.extend(f"call {one}: nobody is paged any more" for one in late)
    points = sum(len(found) for by_moment in readings.values() for found in by_moment.values())
    complaints = []
    if pending:
        complaints.append(f"{pending} messages of the edge were not committed within {SETTLE_S_MAX:.0f} s")
    if not settled:
        complaints.append("hardware still keeps events that no agent took")
    if stored.given_up:
        complaints.append(f"{len(stored.given_up)} urgent notices were given up: {stored.given_up[0]}")
    states = Counter(stored.commands.values())
    details = {
        "overtaken": len(stored.withdrawn - set(latencies)),
        "quarantined": dict(stored.quarantined),
        "gaps": stored.gaps,
        "late_events": sum(bool(row["late"]) for row in stored.events),
        "undelivered": stored.undelivered,
        "series_behind": stored.series_behind,
        "commands": dict(states),
        "escalations": ladder.escalations(steps),
        "acknowledged": sum(step.step == "acknowledge" for step in steps),
        "edge": {host: scene.statistics(host).get("counts", {}) for host in scene.hosts},
    }
    pressed_s = {line["event_id"]: line["real_s"] for line in truth}
    counted = [latency_ms for event_id, latency_ms in latencies.items() if pressed_s[event_id] >= began_s]
    return RoundResult(seed, deed, findings, counted, points, 0.0, complaints, details)
