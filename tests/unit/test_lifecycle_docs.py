"""The pages made from tables are complete, and the committed ones are current."""

import pytest

from cli import lifecycle_docs
from devices import kinds, role
from fleet.incident import ALARM, CALL, ORDER, Priority
from fleet.kind import AlarmDefinition, Flag, Text, Threshold, When


def test_the_committed_pages_are_current():
    made = lifecycle_docs.pages()
    for name, text in made.items():
        assert (lifecycle_docs.DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name}: run `make docs`"
    present = {f"alarms/{path.name}" for path in (lifecycle_docs.DOCS / "alarms").glob("*.md")}
    assert present == {name for name in made if name.startswith("alarms/")}


def test_every_lifecycle_is_found_once():
    found = [lifecycle for _, lifecycle in lifecycle_docs.find_lifecycles()]
    assert {id(ALARM), id(CALL), id(ORDER)} <= set(map(id, found))
    assert len(set(map(id, found))) == len(found)
    assert len({lifecycle.name for lifecycle in found}) == len(found)


def test_every_transition_stands_in_diagram_and_table():
    page = lifecycle_docs.lifecycles_page([("fleet.incident", CALL)])
    for (origin, event), to in CALL.table.items():
        assert f"    {origin.value} --> {to.value}: {event.value}" in page
        assert f"| {origin.value} | {event.value} | {to.value} |" in page


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_every_alarm_says_what_to_do_in_both_languages(kind):
    page = lifecycle_docs.alarms_page(kind, role(kind.name, "rules"))
    for alarm in role(kind.name, "rules").ALARMS:
        for text in (alarm.title, alarm.cause, alarm.consequence, alarm.action):
            assert text.zh in page
            assert text.en in page
    urgencies = [line.split("|")[2].strip() for line in page.splitlines() if line.startswith("| priority |")]
    assert urgencies == sorted(urgencies, key=list(Priority).index)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Threshold("fridge_celsius", above=4.0, deadband=0.5), "`fridge_celsius` above 4, until 0.5 back"),
        (Threshold("battery_percent", below=10), "`battery_percent` below 10"),
        (Flag("door_open"), "`door_open` is True"),
        (When(lambda state: state is not None), "the state says so (see cause)"),
    ],
)
def test_conditions_in_words(condition, words):
    text = Text("字", "word")
    alarm = AlarmDefinition(
        key="k", title=text, priority=Priority.LOW, condition=condition, cause=text, consequence=text, action=text,
        respond_within_s=90,
    )  # fmt: skip
    assert lifecycle_docs.condition_text(alarm) == words
    assert "1.5 min" not in lifecycle_docs._duration(90)
    assert lifecycle_docs._duration(90) == "90 s"
    assert lifecycle_docs._duration(7200) == "2 h"


def test_pages_of_kinds_that_are_gone_are_removed(tmp_path):
    (tmp_path / "alarms").mkdir()
    (tmp_path / "alarms/gone.md").write_text("")
    written = lifecycle_docs.write(tmp_path)
    assert set(tmp_path.rglob("*.md")) == set(written)
