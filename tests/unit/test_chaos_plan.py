"""The schedule: the same for the same seed, every named point in it, and nothing that a machine can't do."""

import pytest

from cli.chaos import plan
from cli.chaos.command import fault_names
from fleet.milestones import MILESTONES


def test_a_seed_fixes_the_schedule():
    assert plan.plan_kills(7, 40) == plan.plan_kills(7, 40)
    assert plan.plan_kills(7, 40) != plan.plan_kills(8, 40)
    assert plan.plan_spells(7, plan.WEATHERS, 20) == plan.plan_spells(7, plan.WEATHERS, 20)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("roles", [False, True])
def test_the_short_run_has_every_named_point_and_the_broker(seed, roles):
    kills = plan.plan_kills(seed, 34, roles=roles)
    assert len(kills) == 34
    assert {kill.point for kill in kills} >= set(MILESTONES)
    assert {plan.DATABASE, ""} <= {kill.point for kill in kills if kill.victim == plan.BROKER}


def test_few_kills_are_points_and_none_too_many():
    assert [len(plan.plan_kills(1, count)) for count in range(6)] == list(range(6))


def test_a_point_kills_the_process_that_passes_it():
    for name in MILESTONES:
        assert plan.victim_of(name, roles=False) == ("edge" if name.startswith("edge.") else "cloud")
    assert plan.victim_of("dispatch.after_lease", roles=True) == "dispatch"
    assert plan.victim_of("drain.after_series_write", roles=True) == "ingest"


def test_every_weather_has_its_turn():
    assert {spell.name for spell in plan.plan_spells(1, plan.WEATHERS, len(plan.WEATHERS))} == set(plan.WEATHERS)
    assert plan.plan_spells(1, (), 5) == []


def test_clocks_jump_by_hours_and_by_ten_years():
    spells = plan.plan_spells(1, ("clock_edge", "clock_cloud"), 60)
    assert {spell.value for spell in spells} == set(plan.CLOCK_JUMPS_S)


def test_a_scenario_of_its_own_victims():
    kills = plan.kills_of(plan.SCENARIOS["broker-database"], 1, 100)
    assert {(kill.victim, kill.point) for kill in kills} == {(plan.BROKER, plan.DATABASE)}
    assert len(kills) == 100


def test_fault_names():
    assert fault_names("all", plan.WEATHERS) == plan.WEATHERS
    assert fault_names("none", plan.WEATHERS) == ()
    assert fault_names("cut, delay", plan.WEATHERS) == ("cut", "delay")
    with pytest.raises(ValueError, match="unknown quake; known: all, none, cut"):
        fault_names("quake", plan.WEATHERS)
