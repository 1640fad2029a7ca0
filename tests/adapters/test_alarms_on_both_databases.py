"""Alarms and incidents on SQLite and on PostgreSQL: what dispatch writes is what the desk reads."""

from dataclasses import replace

import pytest

from cloud.adapters.sql.database import SqlDatabase
from cloud.alarms import repository as alarms
from cloud.alarms import statistics
from cloud.alarms.schemas import TextAnswer
from cloud.dispatch import incidents as lifecycle
from cloud.dispatch.planner import Dispatch
from cloud.incidents import repository as incidents
from cloud.model import HiddenBy, HidingChange, ViewChange
from cloud.tables import device, maintenance_window, person
from fleet.incident import AlarmEvent, AlarmState, AlarmView, Priority, ViewEvent
from tests.unit.dispatch_cases import NOW, alarm_change, decided, definition, rows, waiting

pytest_plugins = ("tests.adapters.postgres_fixture",)

SILENT = definition("silent", Priority.MEDIUM)
HOT = definition("hot", Priority.HIGH, skill="repair")
MANY = 30
HOUR = 3_600_000


@pytest.fixture
def database(database_url):
    made = SqlDatabase(database_url)
    made.write_here(people_and_devices)
    yield made
    made.close()


def people_and_devices(tx):
    somebody = {"id": "p1", "login": "li", "name": "李师傅", "role": "crew", "password_hash": "", "created_at": NOW}
    tx.execute(person.insert(), somebody)
    tx.execute(
        device.insert(),
        [
            {"device_id": f"bike-{n:03}", "kind": "bike", "enrolled_at": NOW, "site": "north" if n % 2 else ""}
            for n in range(MANY)
        ],
    )


def plan(database, decisions, now=NOW):
    return database.write_here(lambda tx: Dispatch(("inbox", "webhook")).plan(tx, decisions, now))


def flood(database):
    for _ in range(2):  # a repeated decision changes nothing
        plan(database, decided(*(alarm_change(number, of=SILENT) for number in range(MANY))))
    (found,) = database.read_here(lambda tx: incidents.incidents(tx, is_open=True, before=None, limit=10))
    return found


def test_a_flood_is_read_listed_acknowledged_and_ended(database):
    found = flood(database)
    assert (found.alarm_count, found.open_count, found.state) == (MANY, MANY, "open")
    (key,) = database.read_here(lambda tx: incidents.keys_of(tx, [found.id]))
    assert (key.key, key.count, int(key.open_count)) == ("silent", MANY, MANY)
    assert [row.devices for row in database.read_here(incidents.sites)] == [MANY // 2]
    assert database.read_here(lambda tx: alarms.open_alarms(tx, None, 100)) == [], "they stand in the incident"
    wanted = {"incident_id": found.id}
    pages, after = [], None
    while page := database.read_here(lambda tx, after=after: alarms.open_alarms(tx, after, 7, wanted)):
        pages += [row.id for row in page]
        after = alarms.urgency_of(page[-1])
    assert (len(pages), len(set(pages))) == (MANY, MANY)
    assert database.write_here(lambda tx: lifecycle.acknowledge(tx, found.id, "p1", "seen", NOW + 1))
    unseen = database.read_here(lambda tx: incidents.unseen_alarms(tx, found.id))
    assert len(unseen) == MANY
    seen = [
        alarm_change(n, AlarmEvent.ACKNOWLEDGE, AlarmState.UNACKNOWLEDGED, of=SILENT, actor="p1") for n in range(MANY)
    ]
    plan(database, decided(*seen), NOW + 2)
    assert database.read_here(lambda tx: incidents.unseen_alarms(tx, found.id)) == []
    over = [alarm_change(n, AlarmEvent.RETURN, AlarmState.ACKNOWLEDGED, of=SILENT, at=NOW + 9) for n in range(MANY)]
    plan(database, decided(*over), NOW + 9)
    row = database.read_here(lambda tx: incidents.incident_by_id(tx, found.id))
    assert (row.state, row.open_count, row.acknowledged_by_name) == ("ended", 0, "李师傅")
    steps = [step.event for step in database.read_here(lambda tx: incidents.transitions(tx, found.id))]
    assert steps[-2:] == ["acknowledge", "end"]


def test_what_is_hidden_and_shown_again_is_the_same_on_both(database):
    change = alarm_change(1, of=HOT)
    hidden = HiddenBy("p1", "known", NOW + HOUR)
    plan(database, decided(replace(change, view=AlarmView.SHELVED, hidden=hidden)))
    assert database.read_here(waiting) == []
    decisions = decided()
    act = HidingChange(
        "hiding-1", change.device_id, "hot", "shelf", NOW, NOW + HOUR, "p1", "known", NOW, "", True
    )  # fmt: skip
    decisions.hidings.append(act)
    for _ in range(2):
        plan(database, decisions)
    (row,) = database.read_here(lambda tx: alarms.hidings(tx, 10))
    assert (row.actor_name, row.form, row.one_shot) == ("李师傅", "shelf", 1)
    (row,) = database.read_here(
        lambda tx: alarms.alarms(tx, wanted={"hidden": "yes"}, is_open=True, before=None, limit=10)
    )
    assert (row.view, row.hidden_by_name, row.hidden_until) == ("shelved", "李师傅", NOW + HOUR)
    decisions = decided()
    decisions.hidings.append(replace(act, ended_at=NOW + 5, ended_by="p1", ended_reason="enough"))
    decisions.views.append(
        ViewChange(
            change.alarm_id, change.device_id, "bike", HOT, ViewEvent.SHOW, AlarmView.SHELVED, AlarmView.SHOWN,
            AlarmState.UNACKNOWLEDGED, NOW, NOW + 5,
        )
    )  # fmt: skip
    for _ in range(2):
        plan(database, decisions, NOW + 5)
    assert database.read_here(lambda tx: alarms.hidings(tx, 10)) == []
    (row,) = database.read_here(lambda tx: alarms.open_alarms(tx, None, 10))
    assert (row.view, row.told_at) == ("shown", NOW + 5)
    assert database.read_here(lambda tx: alarms.hiding_by_id(tx, "hiding-1")) is None


def test_windows_and_statistics_are_read_on_both(database):
    window = {
        "id": "w1", "scope": "site", "target": "north", "from_at": NOW, "until_at": NOW + HOUR, "reason": "r",
        "actor": "p1", "created_at": NOW,
    }  # fmt: skip
    decisions = decided()
    decisions.hidings.append(
        HidingChange("o1", "bike-001", "", "window", NOW, NOW + HOUR, "p1", "r", NOW, "w1")
    )  # fmt: skip
    database.write_here(lambda tx: tx.execute(maintenance_window.insert(), window))
    plan(database, decisions)
    (row,) = database.read_here(lambda tx: alarms.windows(tx, None, 10))
    assert (row.device_count, row.target) == (1, "north")
    assert database.read_here(lambda tx: alarms.devices_in_window(tx, "w1")) == ["bike-001"]
    assert len(database.read_here(lambda tx: alarms.window_devices(tx, "site", "north"))) == MANY // 2
    flood(database)
    figures = database.read_here(
        lambda tx: statistics.statistics(tx, NOW - HOUR, NOW + HOUR, lambda _, key: TextAnswer(zh=key, en=key))
    )
    assert figures.model_dump()
    assert len(database.read_here(lambda tx: rows(tx, maintenance_window))) == 1
