"""Floods as incidents: one row with its list, few notifications, and an end that waits for nothing."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from dispatch_cases import NOW, alarm_change, decided, definition, press, rows, waiting
from sqlalchemy import update

from cloud.adapters.sql.database import SqlDatabase
from cloud.dispatch import incidents, latches
from cloud.dispatch.planner import Dispatch
from cloud.model import HiddenBy, ViewChange
from cloud.tables import alarm, incident, incident_alarm, intent, metadata, outbox
from fleet.incident import AlarmEvent, AlarmState, AlarmView, Priority, ViewEvent

ALL = 390
SILENT = definition("silent", Priority.MEDIUM)


@pytest.fixture
def database(tmp_path):
    made = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    made.write_here(metadata.create_all)
    yield made
    made.close()


def plan(database, *changes, now=NOW):
    return database.write_here(lambda tx: Dispatch(("inbox", "webhook")).plan(tx, decided(*changes), now))


def drop_all(database, over_s=40):
    """All devices fall silent within `over_s`; returns when the last did."""
    for second in range(over_s):
        at = NOW + second * 1000
        numbers = range(second * ALL // over_s, (second + 1) * ALL // over_s)
        plan(database, *(alarm_change(number, of=SILENT, at=at) for number in numbers), now=at)
    return at


def deliver(database, until):
    """Everything that is due has reached its receivers."""
    due = outbox.c.delivered_at.is_(None) & outbox.c.given_up_at.is_(None) & (outbox.c.available_at <= until)
    database.write_here(lambda tx: tx.execute(update(outbox).where(due).values(delivered_at=until)))


def sent(database, channel="webhook"):
    found = database.read_here(lambda tx: rows(tx, outbox))
    return [row for row in found if row["channel"] == channel and row["delivered_at"] is not None]


def test_all_devices_dropping_are_one_incident_and_at_most_three_notifications_in_ten_minutes(database):
    last = drop_all(database)
    (found,) = database.read_here(lambda tx: rows(tx, incident))
    assert (found["alarm_count"], found["open_count"], found["state"]) == (ALL, ALL, "open")
    assert len(database.read_here(lambda tx: rows(tx, incident_alarm))) == ALL
    for second in range(0, 600, 10):
        deliver(database, last + second * 1000)
    returns = [
        alarm_change(number, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=SILENT, at=last + 300_000)
        for number in range(ALL)
    ]
    plan(database, *returns, now=last + 300_000)
    deliver(database, NOW + 599_999)
    assert len(sent(database)) <= 3
    (found,) = database.read_here(lambda tx: rows(tx, incident))
    assert (found["state"], found["open_count"]) == ("ended", 0)


def test_the_resolve_of_a_group_waits_for_no_group_timer(database):
    """The digest was delivered; the next one is due in minutes. The end is told in the commit that brings it."""
    last = drop_all(database, over_s=5)
    deliver(database, NOW + 10_000)
    assert len(sent(database)) == 1
    ends = last + 30_000
    plan(
        database,
        *(
            alarm_change(number, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=SILENT, at=ends)
            for number in range(ALL)
        ),
        now=ends,
    )
    due = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["delivered_at"] is None]
    over = [row for row in due if row["given_up_at"] is None and row["channel"] == "webhook"]
    assert [row["available_at"] for row in over] == [ends]
    assert "All over" in over[0]["notification"]
    deliver(database, ends)
    plan(database, alarm_change(1, AlarmEvent.ACTIVATE, AlarmState.RETURNED_UNACKNOWLEDGED, of=SILENT, at=ends + 1))
    (found,) = database.read_here(lambda tx: rows(tx, incident))
    assert (found["state"], found["ended_at"]) == ("open", None), "one of its alarms is back"


def test_what_is_over_before_it_was_told_says_so_in_the_one_notice(database):
    drop_all(database, over_s=2)
    plan(
        database,
        *(
            alarm_change(number, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=SILENT, at=NOW + 3000)
            for number in range(ALL)
        ),
        now=NOW + 3000,
    )
    (notice,) = database.read_here(waiting)
    assert notice.title_en.startswith("All over: 390 alarms at once")


def test_the_same_flood_again_changes_nothing(database):
    drop_all(database, over_s=3)
    before = database.read_here(lambda tx: (rows(tx, incident), rows(tx, incident_alarm), rows(tx, outbox)))
    drop_all(database, over_s=3)
    assert database.read_here(lambda tx: (rows(tx, incident), rows(tx, incident_alarm), rows(tx, outbox))) == before


def test_a_press_in_a_flood_belongs_to_no_incident_and_waits_for_nothing(database):
    last = drop_all(database, over_s=3)
    plan(database, press(), now=last)
    urgent = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["urgent"] == 1]
    assert urgent
    assert {row["available_at"] for row in urgent} == {last}
    members = {row["alarm_id"] for row in database.read_here(lambda tx: rows(tx, incident_alarm))}
    assert "call-1" not in members


def test_a_hidden_alarm_is_told_to_nobody_makes_no_order_and_is_announced_once_it_is_shown(database):
    hot = definition("hot", Priority.HIGH, skill="repair")
    change = alarm_change(1, of=hot)
    hidden = HiddenBy("silent", "follows from it")
    plan(database, replace(change, view=AlarmView.SUPPRESSED_BY_DESIGN, hidden=hidden))
    assert database.read_here(waiting) == []
    (row,) = database.read_here(lambda tx: rows(tx, alarm))
    assert (row["view"], row["hidden_by"], row["told_at"]) == ("suppressed_by_design", "silent", None)
    shown = ViewChange(
        change.alarm_id, change.device_id, "bike", hot, ViewEvent.SHOW, AlarmView.SUPPRESSED_BY_DESIGN,
        AlarmView.SHOWN, AlarmState.UNACKNOWLEDGED, NOW, NOW + 60_000,
    )  # fmt: skip
    decisions = decided()
    decisions.views.append(shown)
    for _ in range(2):  # a repeated decision changes nothing
        database.write_here(lambda tx: Dispatch(("inbox", "webhook")).plan(tx, decisions, NOW + 60_000))
    (notice,) = database.read_here(waiting)
    assert notice.title_en == "Still true · Alarm hot: bike-001"
    assert (notice.facts["activated_at"], bool(notice.facts["order_id"])) == (NOW, True)
    (row,) = database.read_here(lambda tx: rows(tx, alarm))
    assert (row["view"], row["told_at"]) == ("shown", NOW + 60_000)


def test_a_notice_that_still_waits_is_called_off_when_its_alarm_is_hidden(database):
    change = alarm_change(1, of=SILENT)
    plan(database, change)
    assert len(database.read_here(waiting)) == 1
    decisions = decided()
    decisions.views.append(
        ViewChange(
            change.alarm_id, change.device_id, "bike", SILENT, ViewEvent.SHELVE, AlarmView.SHOWN, AlarmView.SHELVED,
            AlarmState.UNACKNOWLEDGED, NOW, NOW + 1000, HiddenBy("p1", "known", NOW + 60_000), "p1",
        )
    )  # fmt: skip
    database.write_here(lambda tx: Dispatch(("inbox", "webhook")).plan(tx, decisions, NOW + 1000))
    assert database.read_here(waiting) == []


def test_work_done_on_site_and_verified_resets_the_latch_through_the_lane_exactly_once(database):
    tampered = definition("tampered", Priority.HIGH, skill="inspection")
    change = alarm_change(1, of=tampered)
    plan(database, change)
    order = SimpleNamespace(
        id="order-1", cause=f"alarm:{change.alarm_id}", device_id=change.device_id, assigned_to="p1"
    )
    assert database.write_here(lambda tx: latches.ask_reset(tx, order, NOW)) is False, "it is still true"
    plan(
        database,
        replace(
            change, event=AlarmEvent.RETURN_LATCHED, before=AlarmState.UNACKNOWLEDGED,
            after=AlarmState.LATCHED_UNACKNOWLEDGED, at=NOW + 1,
        ),
    )  # fmt: skip
    assert [database.write_here(lambda tx: latches.ask_reset(tx, order, NOW)) for _ in range(2)] == [True, False]
    (act,) = database.read_here(lambda tx: rows(tx, intent))
    assert (act["name"], act["actor"], act["device_id"]) == ("reset_latch", "p1", "bike-001")
    plan(database, alarm_change(2, of=SILENT))
    other = SimpleNamespace(id="order-2", cause="need:bike-001:battery:1", device_id="bike-001", assigned_to=None)
    assert database.write_here(lambda tx: latches.ask_reset(tx, other, NOW)) is False


def test_what_is_told_again_of_an_open_incident_is_no_second_incident(database):
    """A maintenance window over a flood ends and everything is still true: it is the same incident, told again."""
    last = drop_all(database, over_s=5)
    deliver(database, last + 60_000)
    told = len(sent(database))
    (first,) = database.read_here(lambda tx: rows(tx, incident))
    database.write_here(lambda tx: incidents.acknowledge(tx, first["id"], "p1", "", last + 60_000))
    ends = last + 4 * 3_600_000
    decisions = decided()
    decisions.views += [
        ViewChange(
            change.alarm_id, change.device_id, "bike", SILENT, ViewEvent.SHOW, AlarmView.OUT_OF_SERVICE,
            AlarmView.SHOWN, AlarmState.UNACKNOWLEDGED, NOW, ends,
        )
        for change in (alarm_change(number, of=SILENT) for number in range(ALL))
    ]  # fmt: skip
    for _ in range(2):  # a repeated decision changes nothing
        database.write_here(lambda tx: Dispatch(("inbox", "webhook")).plan(tx, decisions, ends))
    (found,) = database.read_here(lambda tx: rows(tx, incident))
    assert (found["id"], found["state"], found["alarm_count"]) == (first["id"], "open", ALL)
    deliver(database, ends + 10_000)
    assert len(sent(database)) == told + 1
    assert sent(database)[-1]["reference"] == first["id"]
    returned = [alarm_change(n, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=SILENT, at=ends) for n in range(ALL)]
    plan(database, *returned, now=ends + 20_000)
    (found,) = database.read_here(lambda tx: rows(tx, incident))
    assert found["state"] == "ended"


def test_new_alarms_beside_told_ones_are_an_incident_of_their_own_without_the_told_ones(database):
    drop_all(database, over_s=1)
    later = NOW + 3_600_000
    again = [
        alarm_change(number, AlarmEvent.REALARM, AlarmState.UNACKNOWLEDGED, of=SILENT, at=later) for number in range(20)
    ]
    new = [alarm_change(number, of=SILENT, at=later) for number in range(ALL, ALL + 30)]
    plan(database, *again, *new, now=later)
    found = database.read_here(lambda tx: rows(tx, incident))
    assert sorted(row["alarm_count"] for row in found) == [30, ALL]
