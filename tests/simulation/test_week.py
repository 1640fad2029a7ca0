"""The normal week: limits that hold, and that break when noise is planted; the same week in every process."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import devices
from cli.week.command import PER_10_MIN_MAX, judged
from cli.week.figures import figures, windows
from cli.week.geography import road_metres, straight_metres, tour
from cli.week.handling import BY_TELEPHONE, SERVED_BY_NEED, WORK, work_of
from cli.week.page import draw, drawing
from cli.week.plan import RATES, WeekPlan
from cli.week.run import run_week
from cli.week.van import BOXES_MAX, Van
from cloud.rules.conditions import link_alarms

FEW = {"bike": 6, "meal_machine": 2, "nursing_room": 6}
REDUCED = WeekPlan(days=0.6, counts=FEW, crew=(2, 1, 1), fault_factor=10.0)
HERE = (38.86, 121.52)


@pytest.fixture(scope="module")
def day():
    return run_week(REDUCED, lambda week, cpu_s: (figures(week, cpu_s), drawing(week)))


def test_a_day_keeps_the_limits(day):
    found, _ = day
    assert all(judged(found, None).values())
    assert found["alarms"]["activations"] > 5
    assert found["telephones"]["alarms_per_person_10_min"]["mean"] <= PER_10_MIN_MAX
    assert found["orders"]["done"] >= 3
    assert found["alarms"]["led_to_action"] > 0.3
    assert found["crew"]["kilometres"] > 0
    assert found["service"]["meals_got"] > 0.9


def test_people_are_told_through_the_product(day):
    found, _ = day
    kinds = {key.split(":")[0] for key in found["telephones"]["by_kind"]}
    assert {"alarm", "order"} <= kinds
    assert found["refused_acts"].get("complete: not_scanned", 0) == 0


def test_planted_noise_breaks_the_limits(day):
    calm, _ = day
    noisy = run_week(replace(REDUCED, days=0.5, without_on_delays=True), figures)
    assert noisy["alarms"]["activations"] > 3 * calm["alarms"]["activations"] > 0
    assert not all(judged(noisy, None).values())


def elsewhere(hash_seed):
    command = [sys.executable, "-m", "cli.main", "week", "--seed", "3", "--days", "0.4", "--no-rounds", "--json"]
    counts = [f"--devices={kind}={count}" for kind, count in FEW.items()]
    done = subprocess.run(
        [*command, *counts, "--fault-factor", "10"], capture_output=True, text=True, timeout=90, check=False,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout)["planned"]


def test_one_seed_is_one_week_in_every_process():
    first, second = elsewhere("1"), elsewhere("2")
    for found in (first, second):
        del found["cpu_s"]
    assert first["digest"] == second["digest"]
    assert first == second
    assert first["commits"] > 3


def test_fixed_rounds_visit_everything():
    found = run_week(replace(REDUCED, policy="rounds", days=0.5), figures)
    by_reason = found["crew"]["by_reason"]
    assert {"round:bike", "round:meal_machine", "round:nursing_room"} <= set(by_reason)
    assert found["crew"]["proof_tests"] == 2  # a fifth of six rooms, rounded up
    assert found["service"]["restocks"] >= 2


def test_the_page_is_complete_and_without_scripts(day):
    found, picture = day
    page = draw(picture, {"planned": found, "rounds": None, "saved": None, "limits": {}})
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "<script" not in page
    assert found["alarms"]["bad_actors"][0]["key"] in page


# --- the parts -----------------------------------------------------------------------------------------------------


def test_the_table_of_rates_names_what_there_is():
    for rate in RATES:
        assert rate.reason
        if rate.act in {"link", "power", "defect"}:
            continue
        actions = devices.role(rate.kind, "simulator").create.__annotations__  # the module is there
        assert actions
        simulator = devices.role(rate.kind, "simulator")
        known = next(one.ACTIONS for one in vars(simulator).values() if hasattr(one, "ACTIONS"))
        assert rate.act in known, rate.name
        assert rate.over_by is None or rate.over_by in known, rate.name


def test_the_documentation_shows_the_same_rates():
    text = (Path(__file__).parents[2] / "docs" / "week.md").read_text(encoding="utf-8")
    for rate in RATES:
        assert f"| {rate.name} | {rate.days_between:g} |" in text, rate.name


def test_what_people_do_names_alarms_and_needs_that_there_are():
    keys = {}
    for name, kind in devices.kinds().items():
        known = (*devices.role(name, "rules").ALARMS, *link_alarms(kind))
        keys[name] = {definition.key for definition in known}
    needs = {"battery_swap", "restock", "button_battery", "uv_lamp", "defect", "proof_test"}
    for kind, key in (*WORK, *BY_TELEPHONE, *SERVED_BY_NEED):
        assert key in keys[kind] | needs, (kind, key)
    assert work_of("bike", "none-such").minutes[0] > 0


def test_windows_slide():
    assert windows([]) == 0
    assert windows([0, 599_999, 600_000]) == 2
    assert windows([0, 1, 2, 700_000]) == 3


def test_a_tour_is_short():
    square = [(38.86 + 0.01 * (index % 5), 121.52 + 0.01 * (index // 5)) for index in range(25)]
    scattered = [square[index * 7 % 25] for index in range(25)]
    order = tour(HERE, scattered)
    assert sorted(order) == list(range(25))

    def length(indices):
        points = [HERE, *(scattered[index] for index in indices), HERE]
        return sum(straight_metres(a, b) for a, b in pairwise(points))

    assert length(order) < 0.5 * length(range(25))


def test_a_van_that_is_called_off_is_somewhere_on_its_way():
    van = Van(HERE, HERE)
    there = (38.87, 121.52)
    arrives = van.set_out(there, 0, "order")
    van.stop(arrives // 2)
    assert HERE[0] < van.at[0] < there[0]
    assert van.kilometres == pytest.approx(road_metres(HERE, there) / 2000, rel=0.01)
    van.boxes = 3
    van.load()
    assert van.boxes == BOXES_MAX
