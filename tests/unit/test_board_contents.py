"""What stands on the boards: every field, every alarm, the rules' own limits, units and words in both languages."""

import json
import re

import pytest

from cloud.rules.conditions import link_alarms
from cloud.timeseries.points import SEQ_FIELD, ReadingPlan
from dashboards import build, kind_boards, scales, words
from dashboards.check import faults_of
from dashboards.limits import limits_of
from devices import kinds
from fleet import series
from fleet.kind import Threshold

KINDS = sorted(kinds())
TEXT_PANELS = {"table", "state-timeline"}
"""Their columns carry units one by one, and texts have none."""


@pytest.fixture(scope="module")
def boards():
    return {language: build.build_all(language) for language in build.LANGUAGES}


def queries(board):
    return [target["query"] for panel in board["panels"] for target in panel["targets"]]


def overrides(panel):
    return panel["fieldConfig"].get("overrides", [])


@pytest.mark.parametrize("name", KINDS)
def test_every_telemetry_field_is_asked_for(boards, name):
    kind = kinds()[name]
    sequences = ReadingPlan(name, kind.reading)._counted  # the series hold their lengths alone
    written = {field for field in kind.reading.model_fields if field != "at"} - set(sequences)
    asked = " ".join(queries(boards["en"][build.uid_of(name)]) + queries(boards["en"][build.device_uid_of(name)]))
    missing = {field for field in written if f'("{field}")' not in asked}
    assert not missing, "no board shows them"
    assert SEQ_FIELD not in asked


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("language", build.LANGUAGES)
def test_every_alarm_is_named_on_the_boards_of_its_kind(boards, name, language):
    kind = kinds()[name]
    defined = {alarm.key: alarm.title.in_language(language) for alarm in (*build.alarms_of(kind), *link_alarms(kind))}
    board = boards[language][build.uid_of(name)]
    (ranking,) = (
        panel
        for panel in board["panels"]
        if panel["type"] == "bargauge" and "alarm_step" in json.dumps(panel["targets"])
    )
    shown = {
        override["matcher"]["options"]: item["value"]
        for override in overrides(ranking)
        for item in override["properties"]
        if item["id"] == "displayName"
    }
    assert shown == defined
    for uid in (build.uid_of(name), build.device_uid_of(name)):
        tables = [panel for panel in boards[language][uid]["panels"] if panel["type"] == "table"]
        (alarms,) = (panel for panel in tables if "alarm_step" in panel["targets"][0]["query"])
        mapped = [item["value"] for one in overrides(alarms) for item in one["properties"] if item["id"] == "mappings"]
        options = [mapping["options"] for mappings in mapped for mapping in mappings]
        titles = next(option for option in options if set(defined) <= set(option))
        assert {key: entry["text"] for key, entry in titles.items()} == defined


def drawn_steps(panel):
    """Label (or None for the whole panel) → threshold values."""
    config = panel["fieldConfig"]
    yield None, [step["value"] for step in config["defaults"].get("thresholds", {}).get("steps", [])]
    for override in overrides(panel):
        for item in override["properties"]:
            if item["id"] == "thresholds":
                yield override["matcher"]["options"], [step["value"] for step in item["value"]["steps"]]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("language", build.LANGUAGES)
def test_every_drawn_threshold_is_the_rules(boards, name, language):
    """In both directions: no line that no rule has, and on the device's board every rule's line."""
    kind = kinds()[name]
    edges = {}
    for alarm in build.alarms_of(kind):
        if isinstance(alarm.condition, Threshold):
            limit = alarm.condition.above if alarm.condition.above is not None else alarm.condition.below
            edges.setdefault(alarm.condition.field, set()).add(limit)
    labels = {scales.scale_of(kind, (), field, language).label: field for field in kind_boards.drawn_fields(kind)}
    seen = set()
    for uid in (build.uid_of(name), build.device_uid_of(name)):
        for panel in boards[language][uid]["panels"]:
            if not any(f'."{name}"' in target["query"] for target in panel["targets"]):
                continue
            fields = {
                field for field in labels.values() if any(f'("{field}")' in one["query"] for one in panel["targets"])
            }
            for label, values in drawn_steps(panel):
                drawn = {value for value in values if value is not None}
                allowed = (
                    edges.get(labels.get(label, ""), set())
                    if label
                    else set().union(*(edges.get(f, set()) for f in fields))
                )
                assert drawn <= allowed, (uid, panel["title"], label)
                if label in labels and uid == build.device_uid_of(name):
                    assert drawn == edges.get(labels[label], set()), (panel["title"], label)
                    seen.add(labels[label])
    assert set(edges) <= seen, "a rule's limit is drawn nowhere"


@pytest.mark.parametrize("uid", [build.OVERVIEW_UID, build.OPERATIONS_UID])
def test_every_threshold_of_the_platform_is_in_its_table(boards, uid):
    for measurement in (series.FLEET_STATE, series.PLATFORM, series.CALL_STEP):
        for field in measurement.fields:
            scale = scales.series_scale(measurement, field.name, "en")
            whole = 1 if field.unit == "count" else 0
            expected = {
                limit.above + whole if limit.above is not None else limit.below
                for limit in limits_of(measurement.name, field.name)
            }
            for panel in boards["en"][uid]["panels"]:
                if f'."{measurement.name}"' not in json.dumps(panel["targets"]).replace('\\"', '"'):
                    continue
                for label, values in drawn_steps(panel):
                    if label == scale.label:
                        assert {value for value in values if value is not None} == expected, (panel["title"], label)


@pytest.mark.parametrize("language", build.LANGUAGES)
def test_every_panel_has_words_a_unit_and_says_what_its_emptiness_means(boards, language):
    for board in boards[language].values():
        assert board["description"]
        for panel in board["panels"]:
            defaults = panel["fieldConfig"]["defaults"]
            for text in (panel["title"], panel["description"], defaults["noValue"]):
                chinese = any("\u4e00" <= character <= "\u9fff" for character in text)
                assert chinese == (language == "zh"), (board["uid"], text)
            units = [item for one in overrides(panel) for item in one["properties"] if item["id"] == "unit"]
            assert defaults.get("unit") or units or panel["type"] in TEXT_PANELS, (board["uid"], panel["title"])


def test_both_languages_ask_the_same(boards):
    for uid, board in boards["zh"].items():
        assert [panel["type"] for panel in board["panels"]] == [panel["type"] for panel in boards["en"][uid]["panels"]]
        fields = re.compile(r'\(("[a-z_0-9]+")')
        for chinese, english in zip(queries(board), queries(boards["en"][uid]), strict=True):
            assert set(fields.findall(chinese)) - set(fields.findall(english)) == set()


def test_every_query_is_bounded_and_at_the_chosen_resolution(boards):
    for uid, board in boards["en"].items():
        for query in queries(board):
            for inner in query.split("FROM ")[1:]:
                if not inner.startswith("("):
                    assert inner.startswith('"${resolution}"."'), (uid, query)
            assert query.count("$timeFilter") >= query.count('FROM "'), (uid, query)
            grouped = set(re.findall(r"GROUP BY ([^)]*?)(?: fill|\)|$)", query))
            assert not any('_id"' in one.replace('"device_id"', "") for one in grouped), (uid, query)
        for query in queries(board):
            assert "ORDER BY" not in query or "LIMIT" in query


@pytest.mark.parametrize("name", KINDS)
def test_rows_of_devices_lead_to_the_device_and_into_the_application(boards, name):
    text = json.dumps(boards["en"][build.uid_of(name)])
    assert f"/d/{build.device_uid_of(name)}?var-device=${{__data.fields.device_id}}&" in text
    assert "${application:raw}/devices/${__data.fields.device_id}" in text
    urls = re.findall(r'"url": "([^"]+)"', text)
    for url in (url for url in urls if url.startswith("/d/")):
        if f"/d/{build.uid_of(name)}?from=" in url:  # the same board over a longer time
            continue
        assert "${__url_time_range}" in url
        assert "${resolution:queryparam}" in url


def test_every_board_offers_longer_times_at_a_coarser_resolution(boards):
    for uid, board in boards["en"].items():
        urls = [one.get("url") or "" for one in board["links"]]
        own = [re.match(rf"/d/{uid}\?from=now-(\d+)h&to=now&var-resolution=(\w+)&", url) for url in urls]
        many = uid in {build.uid_of(name) for name in KINDS}
        expected = (
            [(24, "minute"), (168, "hour"), (720, "hour")] if many else [(24, "raw"), (168, "minute"), (720, "hour")]
        )
        assert [(int(one[1]), one[2]) for one in own if one] == expected
        resolution = next(one for one in board["templating"]["list"] if one["name"] == "resolution")
        assert resolution["current"]["value"] == expected[0][1]
    assert not faults_of(boards["en"])


@pytest.mark.parametrize("name", KINDS)
def test_one_devices_board_has_its_history_as_annotations(boards, name):
    board = boards["en"][build.device_uid_of(name)]
    marks = {mark["name"]: mark for mark in board["annotations"]["list"]}
    assert {"Alarms", "Work orders", "Commands"} <= set(marks)
    assert ("Calls" in marks) == kinds()[name].emergency
    for mark in marks.values():
        assert mark["textColumn"] in mark["query"]
        assert all(f'"{tag}"' in mark["query"] for tag in mark["tagsColumn"].split(","))
    (choice,) = (one for one in board["templating"]["list"] if one["name"] == "device")
    assert not choice.get("multi")


def test_codes_of_closed_lists_have_words():
    for measurement in series.MEASUREMENTS:
        for tag, values in measurement.values.items():
            known = words.CODES.get((measurement.name, tag))
            if known is not None and tag != "reason":
                assert set(values) <= set(known), (measurement.name, tag)
