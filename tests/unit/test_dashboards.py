"""How boards are put together: scales, drawings, refusals, a new kind by its folder, and the golden copies."""

import json
from typing import Annotated, get_args

import pytest

import devices
from dashboards import build, frame, golden, influxql, kind_rows, limits, panels, scales
from dashboards.check import faults_of
from devices import kinds
from fleet import series
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Kind, Panel, Text, Threshold, When
from fleet.messages import Reading
from fleet.panel import Group, Where
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


def test_there_are_four_tiers(boards):
    of_kinds = [uid(name) for name in kinds() for uid in (build.uid_of, build.device_uid_of)]
    assert set(boards) == {build.OVERVIEW_UID, build.OPERATIONS_UID, *of_kinds}
    for board in boards.values():
        assert 0 < len(board["panels"]) <= build.PANELS_MAX
        assert set("?？") & set(board["description"]), f"{board['title']}: which question does it answer?"


def test_boards_and_the_links_between_them_are_whole(boards):
    assert faults_of(boards) == []


def test_panels_do_not_overlap_and_leave_no_ragged_edge(boards):
    for uid, board in boards.items():
        taken = set()
        for panel in board["panels"]:
            position = panel["gridPos"]
            cells = {
                (column, row)
                for column in range(position["x"], position["x"] + position["w"])
                for row in range(position["y"], position["y"] + position["h"])
            }
            assert not cells & taken, (uid, panel["title"])
            taken |= cells
        width = {column for column, _ in taken}
        height = {row for _, row in taken}
        assert len(taken) == len(width) * len(height), f"{uid} has holes"
        assert width == set(range(build.BOARD_WIDTH))


def test_every_unit_has_a_grafana_unit():
    assert set(scales.GRAFANA_UNITS) == UNITS
    assert set(scales.SERIES_UNITS) == set(get_args(series.SeriesUnit))


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


def drawing(panel, alarms=()):
    return kind_rows.drawing_of(kind_rows.Subject(SAMPLE, alarms, "en"), panel)


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


def test_a_count_that_must_not_be_above_zero_is_green_at_zero():
    scale = scales.series_scale(series.FLEET_STATE, "calls_open", "en")
    assert [(step.value, step.color) for step in scale.steps] == [(None, "green"), (1, "dark-red")]


def test_a_field_without_alarms_is_green_and_has_its_bounds():
    scale = scales.scale_of(SAMPLE, [], "load_watts", "zh")
    assert [(step.value, step.color) for step in scale.steps] == [(None, "green")]
    assert (scale.low, scale.high, scale.label, scale.unit) == (0, 900, "负载", "watt")


def test_platform_limits_name_fields_that_there_are_and_one_side():
    for limit in limits.LIMITS:
        assert series.measurement_named(limit.measurement).field_named(limit.field).is_number, limit.key
        assert (limit.above is None) != (limit.below is None), limit.key
    assert len({limit.key for limit in limits.LIMITS}) == len(limits.LIMITS)


@pytest.mark.parametrize(
    ("panel", "reason"),
    [
        (sample_panel(fields=("absent",)), "no field 'absent'"),
        (sample_panel(fields=()), "names no field"),
        (sample_panel(fields=("door_open",)), "is no number"),
        (sample_panel(fields=("door_open",), style="gauge", aggregate="last"), "is no number"),
        (sample_panel(fields=("load_watts", "spare_volts"), style="bar"), "bars show one field"),
        (sample_panel(style="geomap"), "latitude and longitude"),
        (sample_panel(style="list"), "readings have a table"),
        (sample_panel(measurement="absent"), "no measurement 'absent'"),
        (sample_panel(measurement="ride_step", by="colour", fields=("ride_id",)), "neither a tag nor a field 'colour'"),
        (sample_panel(measurement="ride_step", fields=("absent",)), "no field 'absent' in the measurement"),
        (
            sample_panel(fields=(), groups=(Group(Text("字", "x"), (Where("absent", value=True),)),)),
            "no field 'absent'",
        ),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_refused(panel, reason):
    with pytest.raises(scales.BoardError, match=reason):
        drawing(panel)


def test_bars_begin_with_what_is_worst():
    low_is_bad = [alarm("low", Priority.MEDIUM, Threshold("load_watts", below=10))]
    bars = sample_panel(style="bar", aggregate="last", per_device=True)
    assert "bottom(" in drawing(bars, low_is_bad).queries[0].text
    assert "top(" in drawing(bars).queries[0].text
    assert "bottom(" in drawing(sample_panel(style="bar", aggregate="last", lowest_first=True)).queries[0].text


def test_extremes_of_readings_look_at_the_rolled_up_extremes_too():
    text = drawing(sample_panel(aggregate="max")).queries[0].text
    assert '"load_watts"' in text
    assert '"load_watts_max"' in text
    steps = drawing(sample_panel(measurement="ride_step", fields=("duration_ms",), aggregate="max")).queries[0].text
    assert "duration_ms_max" not in steps, "steps are copied whole and have no such field"


def test_money_is_shown_in_yuan():
    drawn = drawing(sample_panel(measurement="ride_step", fields=("fee_fen",), aggregate="sum", every="1h"))
    assert 'sum("fee_fen") / 100' in drawn.queries[0].text
    assert drawn.scales[0].unit == kind_rows.YUAN


def test_a_board_of_too_many_panels_is_refused():
    over = frame.Frame("fleet-x", "x", "?", "en")
    over.add(*[drawing(sample_panel())] * (build.PANELS_MAX + 1))
    with pytest.raises(scales.BoardError, match="13 panels"):
        over.json()
    with pytest.raises(scales.BoardError, match="0 panels"):
        frame.Frame("fleet-x", "x", "?", "en").json()


def test_rows_are_filled_to_the_edge():
    third = drawing(sample_panel())
    shown = [(one.x, one.y, one.w) for one in frame.layout([third] * 3)]
    assert shown == [(0, 0, 12), (12, 0, 12), (0, 8, 24)]


def test_names_and_values_are_quoted():
    assert influxql.identifier('a"b\\c') == '"a\\"b\\\\c"'
    assert influxql.literal("it's \\ so") == "'it\\'s \\\\ so'"
    assert [influxql.literal(value) for value in (True, False, 0.5, 3)] == ["true", "false", "0.5", "3"]
    both = influxql.condition_of([Where("a", ("x", "y")), Where("b", 2, ">=")], "c")
    assert both == 'c AND ("a" = \'x\' OR "a" = \'y\') AND "b" >= 2'


def test_a_panel_is_grafanas_with_its_words():
    made = panels.draw(drawing(sample_panel(no_data=Text("无", "nothing here")))).build()
    assert (made.title, made.description, made.field_config.defaults.no_value) == ("word", "word", "nothing here")


FOLDER_OF_A_KIND = {
    "__init__.py": "",
    "kind.py": (
        "from fleet.kind import Kind, Text\nfrom fleet.messages import Reading\nfrom fleet.units import measured\n"
        "class SampleReading(Reading):\n    load_watts: float = measured('watts', 0, 900, zh='负载', en='Load')\n"
        "KIND = Kind(name='sample', title=Text('样品', 'Sample'), id_prefix='sample', reading=SampleReading, events=(),"
        " commands=(), reading_interval_s=60, silent_after_s=150)\n"
    ),
    "rules.py": "ALARMS = ()\n",
    "panels.py": (
        "from fleet.kind import Panel, Text\n"
        "PANELS = (Panel(title=Text('负载', 'Load'), description=Text('负载', 'Load'), fields=('load_watts',)),)\n"
    ),
}


@pytest.fixture
def kinds_may_be_added(monkeypatch):
    monkeypatch.setattr(devices, "__path__", [*devices.__path__])
    monkeypatch.setattr(devices, "_added", [])
    monkeypatch.setattr(devices, "kinds_cache", {})


@pytest.mark.usefixtures("kinds_may_be_added")
def test_a_kind_has_its_boards_by_its_folder(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    for name, text in FOLDER_OF_A_KIND.items():
        (folder / name).write_text(text)
    devices.add_kind_folder(str(folder))
    built = build.build_all("en")
    assert faults_of(built) == []
    asked = [target["query"] for panel in built["fleet-sample"]["panels"] for target in panel["targets"]]
    assert any('."sample"' in query for query in asked)
    one = [target["query"] for panel in built["fleet-device-sample"]["panels"] for target in panel["targets"]]
    assert any('mean("load_watts")' in query for query in one), "its fields are drawn though it says nothing of them"
    assert "/d/fleet-sample?" in json.dumps(built[build.OVERVIEW_UID])


def test_boards_are_written_and_stale_ones_removed(tmp_path):
    (tmp_path / "fleet-gone.json").write_text("{}")
    (tmp_path / "mine.json").write_text("{}")
    written = golden.write_boards(tmp_path, "en")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(path.name for path in written), "mine.json"])
    assert json.loads(written[0].read_text())["uid"] == build.OVERVIEW_UID
