"""Nothing on a board is a code, money in fen, or a colour that says nothing; axes begin where values can."""

import re

import pytest

from cloud.meals.lifecycle import SaleState
from cloud.rides.lifecycle import RideState
from dashboards import build, kind_boards, scales
from devices import kinds
from fleet import series
from fleet.incident import AlarmState, AlarmView, CallState, OrderState
from fleet.kind import Flag, literal_of
from fleet.messages import Reason

KINDS = sorted(kinds())
STATES = {
    "alarm_step": AlarmState, "call_step": CallState, "order_step": OrderState, "ride_step": RideState,
    "purchase_step": SaleState,
}  # fmt: skip
CODES = re.compile(r"[a-z]+(_[a-z]+)*")


@pytest.fixture(scope="module", params=build.LANGUAGES)
def boards(request):
    return build.build_all(request.param)


def closed_lists(measurement, uid):
    """Column → every value it can have, for the columns of a measurement with a closed list."""
    found = {tag: set(values) for tag, values in measurement.values.items()}
    found |= {one.name: set(one.values) for one in measurement.fields if one.values}
    found |= {one.name: {"true", "false"} for one in measurement.fields if one.unit == "bool"}
    if measurement.name in STATES:
        found["state"] = {one.value for one in STATES[measurement.name]}
    if measurement is series.ALARM_STEP:
        found["view"] = {one.value for one in AlarmView}
    if measurement in (series.RIDE_STEP, series.COMMAND_STEP):
        found["reason"] = {one for one in Reason.__args__ if one}
    own = [kind for kind in kinds().values() if uid in {build.uid_of(kind.name), build.device_uid_of(kind.name)}]
    concerned = own or list(kinds().values())
    found["kind"] = {kind.name for kind in concerned}
    found["key"] = {alarm.key for kind in concerned for alarm in build.alarms_of(kind)}
    found["action"] = {literal_of(command, "action") for kind in concerned for command in kind.commands}
    return found


def overrides_of(panel):
    """Column as it is called when it is dressed → property → value."""
    found = {}
    for override in panel["fieldConfig"].get("overrides", []):
        for item in override["properties"]:
            found.setdefault(override["matcher"]["options"], {})[item["id"]] = item["value"]
    return found


def arranged(panel):
    """(column → its heading, hidden columns) by the table's own arrangement."""
    options = [one["options"] for one in panel.get("transformations", []) if one["id"] == "organize"]
    return options[0]["renameByName"], {name for name, gone in options[0]["excludeByName"].items() if gone}


def measurement_of(query):
    name = re.search(r'"\$\{resolution\}"\."(\w+)"', query)[1]
    return {one.name: one for one in series.MEASUREMENTS}.get(name)


def columns_of(query):
    shown = query[len("SELECT ") : query.index(" FROM ")]
    return re.findall(r'"(\w+)"(?: / \d+ AS "\w+")?(?:, |$)', shown)


def test_every_column_with_a_closed_list_has_words(boards):
    seen = set()
    for uid, board in boards.items():
        for panel in board["panels"]:
            query = panel["targets"][0]["query"]
            if panel["type"] != "table" or (measurement := measurement_of(query)) is None:
                continue
            lists, (headings, hidden) = closed_lists(measurement, uid), arranged(panel)
            dressed = overrides_of(panel)
            for column in set(columns_of(query)) & set(lists) - hidden:
                mappings = dressed.get(headings.get(column, column), {}).get("mappings", [])
                said = {code for one in mappings for code in one["options"]}
                assert lists[column] <= said, (uid, panel["title"], column, lists[column] - said)
                seen.add((measurement.name, column))
    assert {("alarm_step", "state"), ("command_step", "action"), ("ride_step", "reason")} <= seen


def test_every_series_named_after_a_code_has_a_word(boards):
    tags = re.compile(r"^\$tag_(\w+)$")
    seen = set()
    for uid, board in boards.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                tag = tags.match(target.get("alias", ""))
                measurement = measurement_of(target["query"])
                if tag is None or measurement is None or tag[1] in {"device_id", "process"}:
                    continue
                asked = set(re.findall(rf"\"{tag[1]}\" = '(\w+)'", target["query"]))
                codes = asked or closed_lists(measurement, uid).get(tag[1], set())
                assert codes, (uid, panel["title"])
                named = {code for code, properties in overrides_of(panel).items() if "displayName" in properties}
                assert codes <= named, (uid, panel["title"], codes - named)
                seen.add(tag[1])
    assert {"kind", "priority", "step", "reason", "purpose", "group", "key"} <= seen


def test_words_are_words(boards):
    for uid, board in boards.items():
        for panel in board["panels"]:
            for column, properties in overrides_of(panel).items():
                for mapping in properties.get("mappings", []):
                    for code, entry in mapping["options"].items():
                        assert "_" not in entry["text"], (uid, column, code)


def test_money_is_in_yuan(boards):
    fen = {one.name for measurement in series.MEASUREMENTS for one in measurement.fields if one.unit == "fen"}
    seen = 0
    for board in boards.values():
        for panel in board["panels"]:
            for target in panel["targets"]:
                for name in fen:
                    for found in re.finditer(rf'"{name}"\)?', target["query"]):
                        before = target["query"][: found.start()]
                        if not before.endswith(" AS "):
                            assert target["query"][found.end() :].startswith(" / 100"), (panel["title"], target)
                            seen += 1
        assert "suffix: 分" not in str(board)
    assert seen >= 4


def test_a_graph_has_at_most_two_units_and_begins_at_zero_where_it_can(boards):
    for uid, board in boards.items():
        for panel in board["panels"]:
            if panel["type"] != "timeseries":
                continue
            defaults, dressed = panel["fieldConfig"]["defaults"], overrides_of(panel)
            units = {properties["unit"] for properties in dressed.values() if "unit" in properties}
            assert len(units or {defaults["unit"]}) <= 2, (uid, panel["title"], units)
            for name, properties in dressed.items():
                if properties.get("unit") in {"bytes", "percent", "short", "ms", "cps", "reqps", "ops", "cpm"}:
                    assert properties.get("min") == 0 or "dBm" in str(properties), (uid, panel["title"], name)
            if not units and defaults["unit"] in {"percent", "short", "ms", scales.YUAN}:
                assert defaults["min"] == 0, (uid, panel["title"])


@pytest.mark.parametrize("name", KINDS)
def test_states_are_coloured_by_the_rules_and_are_pale_else(boards, name):
    kind = kinds()[name]
    board = boards[build.device_uid_of(name)]
    (timeline,) = (panel for panel in board["panels"] if panel["type"] == "state-timeline")
    (latest,) = (panel for panel in board["panels"] if panel["type"] == "stat")
    looks = kind_boards.looks_of(kind)
    flags = {
        (alarm.condition.field, str(alarm.condition.value).lower()): scales.COLOURS[alarm.priority]
        for alarm in build.alarms_of(kind)
        if isinstance(alarm.condition, Flag)
    }
    language = "zh" if board["title"] == build.build_all("zh")[build.device_uid_of(name)]["title"] else "en"
    for panel, calm in ((timeline, scales.CALM), (latest, scales.CALM_WORD)):
        dressed, shades = overrides_of(panel), set()
        for field in kind_boards.drawn_fields(kind):
            scale = scales.scale_of(kind, (), field, language)
            if scale.numeric:
                continue
            (mapping,) = dressed[scale.label]["mappings"]
            for code, entry in mapping["options"].items():
                expected = flags.get((field, code)) or looks.get(field, {}).get(code, calm)
                assert entry["color"] == expected, (field, code)
                shades.add(entry["color"])
        assert calm in shades
        assert len(shades) > 1


def test_codes_look_like_codes():
    assert all(CODES.fullmatch(one.value) for states in STATES.values() for one in states)
