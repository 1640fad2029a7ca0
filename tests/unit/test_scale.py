"""`fleet scale`: arithmetic whose parts are checked against the simulator, the bench and each other."""

import json

import pytest
from cli_support import fleet, one_line

from cli.scale_page import BEGIN, END
from scripts import tidy

SIMULATED_DEVICES, SIMULATED_READINGS = 390, 1_171_975
"""A whole simulated day of the real fleet, docs/simulation.md."""
BIKE_MB_PER_MONTH = 4.67
"""`fleet bench wire`, measured through a proxy."""


def sizes(*arguments):
    done = fleet("scale", "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["sizes"]


def test_the_readings_of_a_day_are_those_of_a_simulated_one():
    (one,) = sizes("--devices", SIMULATED_DEVICES)
    assert one["readings_per_day"] == pytest.approx(SIMULATED_READINGS, rel=0.01)
    assert str(SIMULATED_READINGS)[:4] in (tidy.ROOT / "docs/simulation.md").read_text().replace(",", "")


def test_a_bikes_bytes_are_those_that_were_measured():
    (one,) = sizes("--devices", SIMULATED_DEVICES)
    assert one["mobile_mb_per_device_month"] == pytest.approx(BIKE_MB_PER_MONTH, rel=0.05)


def test_without_being_asked_it_answers_for_three_sizes_in_proportion():
    small, middle, large = sizes()
    assert [one["devices"] for one in (small, middle, large)] == [400, 40_000, 4_000_000]
    for name in ("readings_per_day", "wire_bytes_per_day", "events_per_day"):
        assert middle[name] == pytest.approx(small[name] * 100, rel=0.01)
        assert large[name] == pytest.approx(middle[name] * 100, rel=0.001)
    assert small["ingesters"] == small["brokers"] == 1 < large["ingesters"] < 64
    assert small["cny_per_device_month_total"] > large["cny_per_device_month_total"]
    assert sum(large["messages_per_second"].values()) < large["messages_per_second_busiest_hour"]


def test_every_device_is_of_some_kind():
    for one in sizes("--devices", 1, "--devices", 7, "--devices", 391):
        assert one["messages_per_day"] > 0
    few = {name: rate for name, rate in sizes("--devices", 1)[0]["messages_per_second"].items() if rate}
    assert len(few) == 1


def test_another_cost_changes_what_hangs_on_it_and_nothing_else():
    (before,), (after,) = sizes("--devices", 4_000_000), sizes("--devices", 4_000_000, "--assume", "ingester_us=260")
    assert after["cores_ingesters"] == pytest.approx(2 * before["cores_ingesters"], rel=0.01)
    assert {name for name in before if before[name] != after[name]} == {
        "cores_ingesters", "ingesters", "shards_per_ingester", "cores", "cny_per_device_month",
        "cny_per_device_month_total",
    }  # fmt: skip


def test_everything_that_is_assumed_says_where_it_comes_from():
    found = json.loads(fleet("scale", "--assumptions", "--json").stdout)
    assert all(one["source"] and one["unit"] and one["value"] >= 0 for one in found.values())
    assert set(found) == set(json.loads(fleet("scale", "--json").stdout)["assumptions"])
    assert "ingester_us" in fleet("scale", "--assumptions").stdout


@pytest.mark.parametrize(
    "wrong", ["ingester_us", "nothing=1", "ingester_us=many", "ingester_us=-1", "use_percent=0", "twin_us=inf"]
)
def test_what_is_no_assumption_is_said_in_one_line(wrong):
    done = fleet("scale", "--assume", wrong)
    assert done.exit_code == 2
    assert wrong in one_line(done)


def test_the_page_stands_as_the_command_writes_it(tmp_path):
    page = tidy.ROOT / "docs/scale.md"
    copy = tmp_path / "scale.md"
    copy.write_text(page.read_text().partition(BEGIN)[0] + f"{BEGIN}\nold\n{END}" + page.read_text().partition(END)[2])
    done = fleet("scale", "--page", copy)
    assert done.exit_code == 0, done.stderr
    assert copy.read_text() == page.read_text(), "run: fleet scale --page docs/scale.md"
    assert (tmp_path / "images/scale.svg").read_text().startswith("<?xml")
    assert "](images/scale.svg)" in page.read_text()


def test_a_page_without_a_place_for_the_tables_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    done = fleet("scale", "--page", page)
    assert done.exit_code == 1
    assert page.read_text() == "nothing here"
    assert fleet("scale", "--page", tmp_path / "absent.md").exit_code == 1
