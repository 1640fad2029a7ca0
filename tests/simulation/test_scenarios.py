"""Scenarios: what happens, what undoes it, who comes, and when people want something."""

import random
from collections import Counter

import pytest
from driven import KINDS, STARTED_MS, THIRTY, Edge

from firmware_sim.demand import HOUR_MS, MEALS, RIDES, local_hour, local_weekday
from firmware_sim.scenario import DEMO, SCENARIOS, Errand, Happening, Scenario
from firmware_sim.world import World


def acted(world, what):
    return [line for line in world.truth.lines() if line.what == what]


def test_the_demo_presses_breaks_and_refills_within_a_few_minutes():
    world = World(KINDS, THIRTY, 1, STARTED_MS, "demo")
    Edge(world)
    world.run_virtual(STARTED_MS + 600_000)
    assert 3 <= len(acted(world, "pressed")) <= 8
    assert acted(world, "controller_stopped")
    assert acted(world, "button_broken")
    assert any(line.kind == "bike" and line.what == "fall" for line in world.truth.lines())
    assert acted(world, "restocked"), "machines that start nearly empty are refilled"


def test_a_happening_is_remedied_on_the_same_device_and_not_doubled_meanwhile():
    scenario = Scenario(
        name="cords",
        description="",
        happenings=(
            Happening(action="remove_cord", every_s=20, first_s=1, remedy="replace_cord", remedy_after_s=(300, 300)),
        ),
        facts={"mishap_factor": 0.0},
    )
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, scenario)
    world.run_virtual(STARTED_MS + 900_000)
    removed, replaced = acted(world, "cord_removed"), acted(world, "cord_replaced")
    assert 2 <= len(replaced) <= len(removed) <= 3
    assert [after.at_ms - before.at_ms for before, after in zip(removed, replaced, strict=False)] == [300_000] * len(
        replaced
    )


def test_a_scenario_ignores_actions_that_no_device_knows():
    scenario = Scenario(
        name="odd",
        description="",
        happenings=(Happening(action="launch", every_s=1, first_s=1),),
        errands=(Errand(action="orbit", snapshot_key="fuel", wanted=bool, travel_s=(1, 1)),),
    )
    world = World(["nursing_room"], {"nursing_room": 1}, 1, STARTED_MS, scenario)
    world.run_virtual(STARTED_MS + 60_000)
    assert acted(world, "reading")


def test_an_errand_goes_once_per_want_after_its_travel_time():
    scenario = Scenario(
        name="lamps",
        description="",
        errands=(
            Errand(
                action="replace_lamp", snapshot_key="lamp_hours", wanted=bool, travel_s=(600, 600), settles_s=86_400
            ),
        ),
        facts={"replace_lamp_travel_s": (120.0, 120.0), "mishap_factor": 0.0, "visits_per_workday": 0.0},
    )
    world = World(["nursing_room"], {"nursing_room": 2}, 1, STARTED_MS, scenario)
    world.run_virtual(STARTED_MS + HOUR_MS)
    replaced = acted(world, "lamp_replaced")
    assert Counter(line.device_id for line in replaced) == {"room-001": 1, "room-002": 1}
    assert all(120_000 <= line.at_ms - STARTED_MS <= 180_000 for line in replaced)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_runs_with_every_kind(name):
    world = World(KINDS, dict.fromkeys(KINDS, 2), 1, STARTED_MS, name)
    Edge(world)
    world.run_virtual(STARTED_MS + 300_000)
    assert world.steps > 0
    assert bool(world.damaged_bytes) <= bool(SCENARIOS[name].line_faults.total_per_million)


def test_the_quiet_scenario_is_quiet_in_the_rooms():
    world = World(["nursing_room"], {"nursing_room": 10}, 1, STARTED_MS, "quiet")
    world.run_virtual(STARTED_MS + 6 * HOUR_MS)
    assert {line.what for line in world.truth.lines() if line.event_id} <= {
        "sterilizer_cycle_finished",
        "self_test_result",
    }


def test_the_demo_begins_at_noon_of_a_workday():
    for hours in range(24 * 8):
        now_ms = STARTED_MS + hours * HOUR_MS + 1_234_567
        started_ms = DEMO.started_ms(now_ms)
        assert started_ms <= now_ms
        assert local_hour(started_ms) == pytest.approx(11.75)
        assert local_weekday(started_ms) < 5


def test_demand_follows_the_day():
    assert local_hour(STARTED_MS) == 12.0
    assert local_weekday(STARTED_MS) == 4
    assert MEALS.at(STARTED_MS) == 1.0
    assert MEALS.at(STARTED_MS + 24 * HOUR_MS) == pytest.approx(MEALS.weekend_factor)
    assert RIDES.at(STARTED_MS - 4 * HOUR_MS) == 1.0
    randomness = random.Random(1)
    at_ms, by_hour = STARTED_MS, Counter()
    while at_ms < STARTED_MS + 5 * 24 * HOUR_MS:
        at_ms = MEALS.next_ms(at_ms, 20.0, randomness)
        by_hour[int(local_hour(at_ms))] += 1
    assert by_hour[12] > 3 * by_hour[9]
