"""The boards' query texts on a real InfluxDB 1.6.7: they answer what was written, at every level of the data."""

from itertools import zip_longest

import httpx
import pytest
from influx_fixture import TOKEN

from dashboards import influxql
from dashboards.influxql import CHOSEN, IN_RANGE, STEP, Column
from fleet.panel import Where

pytestmark = pytest.mark.influxdb

DATABASE = "boards"
START_S = 1_790_002_800  # on a full hour, so that time steps are easy to count
HOUR_S = 3_600
MINUTES = 120
LINES_PER_WRITE = 100


def lines(level):
    """Two devices for two hours, once a minute: `a` goes up, `b` stays and is open; counters that start again."""
    for minute in range(MINUTES):
        at = f"{START_S + minute * 60}000000000"
        extremes = f",warm_min={minute - 5}.0,warm_max={minute + 5}.0" if level == "minute" else ""
        yield f'thing,device_id=a warm={minute}.0,open=false,lock="locked"{extremes} {at}'
        yield f'thing,device_id=b warm=7.0,open=true,lock="{"jammed" if minute > 60 else "locked"}" {at}'
        yield f"platform,process=api requests_total={minute * 60 % 3600}i,errors_total={minute // 60}i {at}"
        yield f"platform,process=ingest requests_total=0i,errors_total=0i {at}"
    for minute, state in ((1, "unacknowledged"), (2, "acknowledged"), (3, "normal")):
        at = f"{START_S + minute * 60}000000000"
        yield f'alarm_step,device_id=a,key=hot,step=s{minute} state="{state}",view="shown" {at}'
    yield f'alarm_step,device_id=b,key=cold,step=s1 state="unacknowledged",view="shown" {START_S}000000000'
    yield f'alarm_step,device_id=b,key=dark,step=s1 state="unacknowledged",view="shelved" {START_S}000000000'


@pytest.fixture(scope="module")
def ask(influx):
    """Runs a query at one level; answers (tags, rows without their times) for each series."""
    headers = {"Authorization": f"Token {TOKEN}"}
    with httpx.Client(base_url=influx.url, headers=headers, timeout=30) as client:

        def run(text):
            (result,) = client.get("/query", params={"db": DATABASE, "q": text, "epoch": "s"}).json()["results"]
            assert "error" not in result, (text, result)
            return result.get("series", [])

        influx.create_database(DATABASE)
        for level in ("raw", "minute"):
            run(f'CREATE RETENTION POLICY "{level}" ON "{DATABASE}" DURATION 0s REPLICATION 1')
            where = {"bucket": f"{DATABASE}/{level}", "precision": "ns"}
            for part in zip_longest(*[lines(level)] * LINES_PER_WRITE, fillvalue=""):
                client.post("/api/v2/write", params=where, content="\n".join(part)).raise_for_status()

        def answer(text, level="raw", devices="(a|b)"):
            end_s = START_S + MINUTES * 60 - 1
            filled = text.replace("$timeFilter", f"time >= {START_S}s and time <= {end_s}s")
            filled = filled.replace("$__interval", "1h").replace("${resolution}", level)
            found = run(filled.replace("${device:regex}", devices))
            return [(one.get("tags", {}), [row[1:] for row in one["values"]]) for one in found]

        yield answer


def test_the_highest_value_is_the_true_one_at_every_level(ask):
    text = influxql.select(
        "thing", [Column("warm", "max", "high"), Column("warm", "min", "low"), Column("warm", "mean", "middle")],
        condition=CHOSEN, by=[STEP], sampled=True,
    )  # fmt: skip
    assert ask(text, devices="a") == [({}, [[59, 0, 29.5], [119, 60, 89.5]])]
    assert ask(text, "minute", devices="a") == [({}, [[64, -5, 29.5], [124, 55, 89.5]])]


def test_devices_are_counted_by_what_they_say_last(ask):
    jammed = [Where("lock", "jammed"), Where("open", value=True), Where("warm", 8, "<")]
    assert ask(influxql.devices_that("thing", jammed, "n")) == [({}, [[1]])]
    assert ask(influxql.devices_that("thing", [Where("warm", 500, ">")], "n")) == []


def test_totals_join_the_latest_of_each(ask):
    columns = [Column("warm", "sum", "together"), Column("warm", "max", "highest")]
    text = influxql.totals("thing", columns, latest_by="device_id", condition=CHOSEN)
    assert ask(text) == [({}, [[126, 119]])]


def test_bars_are_the_extreme_devices(ask):
    column = Column("warm", "last", "warm")
    assert ask(influxql.extreme_devices("thing", column, count=1)) == [({}, [[119, "a"]])]
    assert ask(influxql.extreme_devices("thing", column, count=1, lowest=True)) == [({}, [[7, "b"]])]


def test_counters_that_start_again_make_no_negative_rate(ask):
    text = influxql.rates("platform", [Column("requests_total", "sum", "rate")], tag="process", per="1m")
    ((_, rows),) = ask(text.replace("$__interval", "10m"))
    assert all(rate >= 0 for (rate,) in rows)
    assert sum(rate == 60 for (rate,) in rows) == len(rows) - 1  # one step in which the process started again
    grown = influxql.increases("platform", ["errors_total"], 'sum("errors_total")', "errors", tag="process")
    assert ask(grown.replace("$__interval", "1m")) == [({}, [[1]])]


def test_what_is_still_open_is_judged_by_its_last_step(ask):
    text = influxql.still("alarm_step", "state", ["view"], ["device_id", "key"], ended=["normal"], condition=CHOSEN)
    assert ask(text) == [
        ({}, [["b", "cold", "unacknowledged", "shown"], ["b", "dark", "unacknowledged", "shelved"]]),
    ]  # fmt: skip
    shown = influxql.still(
        "alarm_step", "state", ["view"], ["device_id", "key"], ended=["normal"], condition=CHOSEN,
        also=[Where("view", "shown")],
    )  # fmt: skip
    assert ask(shown) == [({}, [["b", "cold", "unacknowledged", "shown"]])]


def test_a_list_is_the_newest_first_and_bounded(ask):
    text = influxql.recent("alarm_step", ["key", "state"], condition=CHOSEN, rows_max=2)
    assert ask(text) == [({}, [["hot", "normal"], ["hot", "acknowledged"]])]
    counted = influxql.select("alarm_step", [Column("state", "count", "n")], condition=IN_RANGE, by=["key"])
    assert {tags["key"]: rows for tags, rows in ask(counted)} == {"hot": [[3]], "cold": [[1]], "dark": [[1]]}


def test_the_choice_of_devices_lists_them(ask):
    assert ask(influxql.devices_of("thing")) == [({}, [["a"], ["b"]])]
