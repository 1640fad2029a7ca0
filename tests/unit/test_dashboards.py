"""The Grafana boards: complete, consistent with the kinds and their alarms, and equal to the golden copies."""

import json
from typing import Annotated

import pytest

import devices
from dashboards import build, golden, influxql, panels, scales
from devices import kinds
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Kind, Panel, Text, Threshold, When
from fleet.messages import Reading
from fleet.units import UNITS, labelled, measured


@pytest.fixture(scope="module", params=build.LANGUAGES)
def language(request):
    return request.param


@pytest.fixture(scope="module")
def boards(language):
    return build.build_all(language)


def test_golden_copies_are_current(boards, language):
    present = {path.stem: path.read_text(encoding="utf-8") for path in (golden.FOLDER / language).glob("*.json")}
    assert present.keys() == boards.keys(), "run `make boards` and commit what it writes"
    for uid, board in boards.items():
        assert golden.text_of(board) == present[uid], f"{uid} changed: look at it, then run `make boards`"


def test_every_kind_has_a_board_and_there_is_an_overview(boards):
    assert set(boards) == {build.OVERVIEW_UID, *map(build.uid_of, kinds())}
    for uid, board in boards.items():
        assert board["uid"] == uid
        assert len(uid) <= 40  # Grafana's own limit
        assert 0 < len(board["panels"]) <= build.PANELS_MAX


def test_panels_do_not_overlap_and_stay_on_the_board(boards):
    for uid, board in boards.items():
        taken = set()
        for panel in board["panels"]:
            position = panel["gridPos"]
            cells = {
                (column, row)
                for column in range(position["x"], position["x"] + position["w"])
                for row in range(position["y"], position["y"] + position["h"])
            }
            assert position["x"] + position["w"] <= build.BOARD_WIDTH, (uid, panel["title"])
            assert not cells & taken, (uid, panel["title"])
            taken |= cells


def test_ids_are_unique_and_variables_are_defined(boards):
    for board in boards.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert ids == sorted(set(ids))
        variables = {variable["name"] for variable in board["templating"]["list"]}
        text = json.dumps(board["panels"])
        assert "datasource" in variables
        assert ("${device:regex}" in text) == ("device" in variables)


def test_texts_are_in_the_boards_language(boards, language):
    for board in boards.values():
        for panel in board["panels"]:
            chinese = any("\u4e00" <= character <= "\u9fff" for character in panel["title"])
            assert chinese == (language == "zh"), panel["title"]
            assert panel["description"]


def test_every_query_names_its_kind_and_existing_fields(boards):
    for kind in kinds().values():
        for panel in boards[build.uid_of(kind.name)]["panels"]:
            for target in panel["targets"]:
                assert f'FROM "{kind.name}"' in target["query"]
                assert target["rawQuery"] is True
                assert target["datasource"]["type"] == "influxdb"
                assert any(f'("{field}")' in target["query"] for field in kind.reading.model_fields)


def test_every_alarm_limit_of_a_shown_field_is_drawn(boards, language):
    for kind in kinds().values():
        limits = [alarm for alarm in build.alarms_of(kind) if isinstance(alarm.condition, Threshold)]
        drawn = {panel["title"]: panel for panel in boards[build.uid_of(kind.name)]["panels"]}
        for panel in build.panels_of(kind):
            board_panel = drawn[panel.title.in_language(language)]
            values = {step["value"] for step in _steps(board_panel)}
            for alarm in limits:
                if alarm.condition.field in panel.fields:
                    limit = alarm.condition.above if alarm.condition.above is not None else alarm.condition.below
                    assert limit in values, (panel.title.en, alarm.key)
                    assert alarm.action.in_language(language) in board_panel["description"]


def _steps(panel):
    config = panel.get("fieldConfig", {})
    yield from config.get("defaults", {}).get("thresholds", {}).get("steps", [])
    for override in config.get("overrides", []):
        for item in override["properties"]:
            if item["id"] == "thresholds":
                yield from item["value"]["steps"]


def test_every_unit_has_a_grafana_unit():
    assert set(scales.GRAFANA_UNITS) == UNITS


class SampleReading(Reading):
    load_watts: Annotated[float, measured("watts", 0, 900, zh="负载", en="Load")]
    door_open: Annotated[bool, labelled(zh="门", en="Door")]
    spare_volts: Annotated[float | None, measured("volts", 0, 30, zh="备用", en="Spare")] = None


SAMPLE = Kind(
    name="sample", title=Text("样品", "Sample"), id_prefix="sample", reading=SampleReading, events=(), commands=(),
    reading_interval_s=60, silent_after_s=150,
)  # fmt: skip


def alarm(key, priority, condition):
    words = Text("字", "word")
    return AlarmDefinition(
        key=key, title=words, priority=priority, condition=condition, cause=words, consequence=words, action=words,
        respond_within_s=60,
    )  # fmt: skip


def sample_panel(**changes):
    words = Text("字", "word")
    return Panel(**{"title": words, "description": words, "fields": ("load_watts",), **changes})


def test_colours_between_limits_show_the_most_urgent_true_alarm():
    alarms = [
        alarm("low", Priority.MEDIUM, Threshold("load_watts", below=10)),
        alarm("very_low", Priority.HIGH, Threshold("load_watts", below=5)),
        alarm("high", Priority.LOW, Threshold("load_watts", above=800)),
        alarm("state", Priority.HIGH, When(lambda state: state is not None)),
    ]
    steps = scales.scale_of(SAMPLE, alarms, "load_watts", "en").steps
    assert [(step.value, step.color) for step in steps] == [
        (None, "red"), (5, "orange"), (10, "green"), (800, "yellow"),
    ]  # fmt: skip


def test_a_field_without_alarms_is_green_and_has_its_bounds():
    scale = scales.scale_of(SAMPLE, [], "load_watts", "zh")
    assert [(step.value, step.color) for step in scale.steps] == [(None, "green")]
    assert (scale.low, scale.high, scale.label, scale.unit) == (0, 900, "负载", "watt")


@pytest.mark.parametrize(
    ("panel", "reason"),
    [
        (sample_panel(fields=("absent",)), "no field 'absent'"),
        (sample_panel(fields=()), "names no field"),
        (sample_panel(fields=("door_open",)), "is no number"),
        (sample_panel(fields=("door_open",), style="gauge", aggregate="last"), "is no number"),
        (sample_panel(fields=("load_watts", "spare_volts"), style="bar"), "bars show one field"),
        (sample_panel(style="geomap"), "latitude and longitude"),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_refused(panel, reason):
    with pytest.raises(scales.BoardError, match=reason):
        panels.build_panel(panels.Subject(SAMPLE, [], "en"), panel)


def test_only_a_number_that_is_always_present_is_counted():
    assert build.counted_field(SAMPLE) == "load_watts"


def test_names_are_quoted():
    assert influxql.identifier('a"b\\c') == '"a\\"b\\\\c"'


def test_boards_of_a_kind_outside_the_repository(tmp_path, monkeypatch):
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "kind.py").write_text(
        "from fleet.kind import Kind, Text\nfrom fleet.messages import Reading\nfrom fleet.units import measured\n"
        "class SampleReading(Reading):\n    load_watts: float = measured('watts', 0, 900, zh='负载', en='Load')\n"
        "KIND = Kind(name='sample', title=Text('样品', 'Sample'), id_prefix='sample', reading=SampleReading, events=(),"
        " commands=(), reading_interval_s=60, silent_after_s=150)\n"
    )
    (folder / "rules.py").write_text("ALARMS = ()\n")
    (folder / "panels.py").write_text(
        "from fleet.kind import Panel, Text\n"
        "PANELS = (Panel(title=Text('负载', 'Load'), description=Text('负载', 'Load'), fields=('load_watts',)),)\n"
    )
    monkeypatch.setattr(devices, "__path__", [*devices.__path__])
    monkeypatch.setattr(devices, "_added", [])
    monkeypatch.setattr(devices, "kinds_cache", {})
    devices.add_kind_folder(str(folder))
    built = build.build_all("en")
    assert 'FROM "sample"' in built["fleet-sample"]["panels"][0]["targets"][0]["query"]
    assert '"sample"' in json.dumps(built[build.OVERVIEW_UID]).replace('\\"', '"')


def test_boards_are_written_and_stale_ones_removed(tmp_path):
    (tmp_path / "fleet-gone.json").write_text("{}")
    (tmp_path / "mine.json").write_text("{}")
    written = golden.write_boards(tmp_path, "en")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(path.name for path in written), "mine.json"])
    assert json.loads(written[0].read_text())["uid"] == build.OVERVIEW_UID
