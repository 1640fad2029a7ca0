"""A board's queries as Grafana would send them, what is wrong with a board, and what differs between two."""

import copy
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from dashboards.check import Answer, Series, faults_of, run_board, series_of
from dashboards.difference import differences
from dashboards.intervals import as_interval, interval_ms, moment_ms, span_ms
from dashboards.queries import BoardQuery, FillError, Span, Variable, choose, fill, queries_of, span_of, written

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
SPAN = Span(NOW_MS - 6 * HOUR_MS, NOW_MS)
TARGET = {
    "refId": "A",
    "query": 'SELECT last("x") FROM "${resolution}"."bike" WHERE $timeFilter',
    "resultFormat": "table",
}


def board(**changes):
    panel = {
        "id": 1,
        "type": "stat",
        "title": "Charge",
        "description": "of all",
        "gridPos": {"x": 0, "y": 0, "w": 12, "h": 4},
        "datasource": {"uid": "${datasource}"},
        "targets": [dict(TARGET)],
    }
    variables = [
        {"name": "datasource", "type": "datasource", "query": "influxdb"},
        {"name": "resolution", "type": "custom", "query": "raw,minute", "current": {"value": "raw"}},
        {
            "name": "device",
            "type": "query",
            "query": 'SHOW TAG VALUES FROM "${resolution}"."bike" WITH KEY = "device_id"',
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"value": "$__all"},
        },
    ]
    made = {"uid": "fleet-bike", "title": "Bikes", "schemaVersion": 41, "tags": ["gaoxin-fleet"], "panels": [panel],
            "templating": {"list": variables}, "time": {"from": "now-6h", "to": "now"}}  # fmt: skip
    return made | changes


@pytest.mark.parametrize(
    ("range_ms", "points", "least", "interval"),
    [
        (6 * HOUR_MS, 533, "", "30s"), (6 * HOUR_MS, 1000, "", "20s"), (24 * HOUR_MS, 800, "", "2m"),
        (30 * 24 * HOUR_MS, 533, "", "1h"), (HOUR_MS, 1600, "10s", "10s"), (6 * HOUR_MS, 533, ">15m", "15m"),
        (60_000, 1000, "", "50ms"),
    ],
)  # fmt: skip
def test_the_interval_is_grafanas(range_ms, points, least, interval):
    assert as_interval(interval_ms(range_ms, points, span_ms(least) if least else 0)) == interval


@pytest.mark.parametrize(
    ("text", "zone", "end", "expected"),
    [
        ("now", UTC, False, "2026-09-21T14:13:20"), ("now-6h", UTC, False, "2026-09-21T08:13:20"),
        ("now/d", UTC, False, "2026-09-21T00:00:00"), ("now/d", UTC, True, "2026-09-21T23:59:59.999"),
        ("now/d", ZoneInfo("Asia/Shanghai"), False, "2026-09-20T16:00:00"),
        ("now-1d/d", UTC, False, "2026-09-20T00:00:00"), ("now/M", UTC, True, "2026-09-30T23:59:59.999"),
        ("now/y", UTC, True, "2026-12-31T23:59:59.999"), ("now/w", UTC, False, "2026-09-21T00:00:00"),
        ("2026-05-01", UTC, False, "2026-05-01T00:00:00"),
    ],
)  # fmt: skip
def test_moments(text, zone, end, expected):
    assert moment_ms(text, NOW_MS, zone, end=end) == moment_ms(expected, 0)


@pytest.mark.parametrize("text", ["yesterday", "now-6", "now-6x", ""])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match="is no moment"):
        moment_ms(text, NOW_MS)


@pytest.mark.parametrize(
    ("values", "multi", "form", "expected"),
    [
        (("bike-1",), False, "", "bike-1"),
        (("a.b",), True, "", "a\\.b"),
        (("a", "b"), True, "", "(a|b)"),
        (("a.b", "c/d"), True, "regex", "(a\\.b|c\\/d)"),
        (("a", "b"), True, "csv", "a,b"),
        (("a", "b"), True, "pipe", "a|b"),
        (("it's",), False, "singlequote", "'it\\'s'"),
        (("a b",), False, "percentencode", "a%20b"),
    ],
)
def test_variables_are_written_as_grafana_does(values, multi, form, expected):
    assert written(Variable("device", values, multi), form) == expected


def test_an_unknown_variable_or_format_is_an_error_and_nothing_is_guessed():
    query = BoardQuery("b", "panel", "p", "SELECT ${device:yaml} FROM $nothing")
    with pytest.raises(FillError, match="knows no format 'yaml'"):
        fill(query, {"device": Variable("device", ("a",))}, SPAN)
    with pytest.raises(FillError, match="device is no variable"):
        fill(query, {}, SPAN)


def test_a_query_is_filled():
    text = (
        'SELECT x FROM "${resolution}"."b" WHERE $timeFilter AND "d" =~ /^${device:regex}$/ GROUP BY time($__interval)'
    )
    query = BoardQuery("b", "panel", "p", text, points_max=533, least_interval="1m")
    chosen = {"resolution": Variable("resolution", ("raw",)), "device": Variable("device", (), multi=True, raw=".*")}
    filled = fill(query, chosen, SPAN)
    assert filled.text == (
        f'SELECT x FROM "raw"."b" WHERE time >= {SPAN.from_ms}ms and time <= {SPAN.to_ms}ms '
        'AND "d" =~ /^.*$/ GROUP BY time(1m)'
    )
    today = fill(BoardQuery("b", "panel", "p", "$timeFilter", time_from="2h"), {}, SPAN)
    assert today.span.length_ms == 2 * HOUR_MS


def test_a_board_is_run_variables_first_and_as_it_opens():
    asked = []

    def run(text):
        asked.append(text)
        return Answer(
            series_of({"series": [{"columns": ["key", "value"], "values": [["device_id", "b"], ["device_id", "a"]]}]})
        )

    one = board()
    outcomes = run_board(one, run, span_of(one, NOW_MS))
    assert [outcome.query.place for outcome in outcomes] == ["variable", "panel"]
    assert asked[0] == 'SHOW TAG VALUES FROM "raw"."bike" WITH KEY = "device_id"'
    assert '"raw"."bike"' in asked[1]
    assert outcomes[1].answer.rows == 2
    asked.clear()
    run_board(one, run, SPAN, {"resolution": ["minute"]})
    assert all('"minute"' in text for text in asked)


def test_what_is_chosen_when_a_board_opens():
    query = board()["templating"]["list"][2]
    assert choose(query, ["a", "b"]).raw == ".*"
    assert choose({**query, "allValue": None}, ["a", "b"]).values == ("a", "b")
    assert choose({**query, "current": {}, "includeAll": False}, ["a", "b"]).values == ("a",)
    assert choose({"name": "application", "type": "textbox", "query": "https://x"}, []).values == ("https://x",)
    assert choose(query, [], ["b"]).values == ("b",)


def test_rows_that_are_folded_and_targets_that_are_hidden():
    inner = board()["panels"][0]
    hidden = {**inner, "id": 2, "targets": [{**TARGET, "hide": True}]}
    grafana = {**inner, "id": 3, "targets": [{**TARGET, "datasource": {"uid": "-- Grafana --"}}]}
    folded = board(panels=[{"type": "row", "title": "more", "panels": [inner]}, hidden, grafana])
    assert [query.panel_id for query in queries_of(folded) if query.place == "panel"] == [1]


BROKEN = {
    "is not the fixed uid": {"uid": "Bikes!"},
    "no title": {"panels": [{**board()["panels"][0], "title": ""}]},
    "no description": {"panels": [{**board()["panels"][0], "description": ""}]},
    "comes with Grafana": {"panels": [{**board()["panels"][0], "type": "clock"}]},
    "covers": {"panels": [board()["panels"][0], {**board()["panels"][0], "id": 2}]},
    "two panels have one id": {"panels": [board()["panels"][0]] * 2},
    "grid": {"panels": [{**board()["panels"][0], "gridPos": {"x": 20, "y": 0, "w": 12, "h": 4}}]},
    "without $timeFilter": {"panels": [{**board()["panels"][0], "targets": [{**TARGET, "query": "SELECT 1"}]}]},
    "is no variable of this board": {"templating": {"list": []}},
    "which is none of ours": {"links": [{"url": "/d/fleet-tram"}]},
    "which the board does not have": {"links": [{"url": "/d/fleet-bike?var-room=${room}"}]},
    "fixed; use the board's variable": {"panels": [{**board()["panels"][0], "datasource": {"uid": "abc"}}]},
    "1 to 12": {"panels": []},
    "ancient": {"schemaVersion": None},
}


@pytest.mark.parametrize("words", sorted(BROKEN))
def test_each_fault_of_a_board_is_found(words):
    faults = faults_of({"fleet-bike": board(**BROKEN[words])})
    assert any(words in fault.words for fault in faults), faults


def test_a_whole_board_has_no_fault():
    assert faults_of({"fleet-bike": board()}) == []


def test_differences_name_what_a_reader_would_see():
    before, after = board(), copy.deepcopy(board())
    assert differences(before, after) == []
    after["panels"][0]["fieldConfig"] = {"defaults": {"unit": "percent", "decimals": 0}}
    after["templating"]["list"][1]["query"] = "raw,minute,hour"
    after["refresh"] = "30s"
    lines = [line for change in differences(before, after) for line in change.lines()]
    assert lines == [
        "~ board: refresh: nothing → 30s",
        "~ variable resolution: query: raw,minute → raw,minute,hour",
        '~ panel “Charge”: fieldConfig: nothing → {"defaults": {"decimals": 0, "unit": "percent"}}',
    ]


def test_a_zero_is_not_nothing_and_false_is_not_zero():
    one = board()
    for old, new in ((0, None), (False, 0), (1, True)):
        first, second = copy.deepcopy(one), copy.deepcopy(one)
        first["panels"][0]["x"], second["panels"][0]["x"] = old, new
        assert len(differences(first, second)) == 1, (old, new)


def test_a_renamed_panel_is_the_same_one_and_swapped_ids_change_nothing_else():
    other = {**board()["panels"][0], "id": 2, "title": "Locks", "gridPos": {"x": 12, "y": 0, "w": 12, "h": 4}}
    before = board(panels=[board()["panels"][0], other])
    renamed = board(panels=[{**board()["panels"][0], "title": "Battery"}, other])
    assert [change.path for change in differences(before, renamed)] == ["title"]
    moved = board(panels=[{**board()["panels"][0], "id": 2}, {**other, "id": 1}])
    assert [change.path for change in differences(before, moved)] == ["id", "id"]


def test_series_are_read_as_influxdb_writes_them():
    (one,) = series_of({"series": [{"name": "bike", "tags": {"d": "a"}, "columns": ["time", "x"], "values": [[1, 2]]}]})
    assert one == Series("bike", ("time", "x"), ((1, 2),), {"d": "a"})
    assert series_of({}) == ()
