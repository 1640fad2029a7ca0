"""Marks of pages: the same on both databases, and no row of one moment is lost or seen twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.alarms import repository as alarms
from cloud.api.paging import mark, place_of
from cloud.api.problem import ProblemError
from cloud.calls import repository as calls
from cloud.dispatch.planner import Dispatch
from cloud.rides import repository as rides
from cloud.tables import ride
from tests.unit.dispatch_cases import NOW, acknowledge, alarm_change, decided, press

pytest_plugins = ("tests.adapters.postgres_fixture",)


def pages(database, read, mark_of):
    """Ids of all pages of two rows."""
    seen, before = [], None
    while rows := database.read_here(lambda tx, before=before: read(tx, before)):
        seen += [row.id for row in rows]
        before = mark_of(rows[-1])
    return seen


def test_calls(database):
    changes = [press(number, at=NOW + (number > 3)) for number in range(1, 6)]
    changes.append(acknowledge(at=NOW + 9, number=1))
    database.write_here(lambda tx: Dispatch().plan(tx, decided(*changes), NOW))
    newest = pages(
        database,
        lambda tx, before: calls.calls(tx, is_open=None, device_id=None, before=before, limit=2),
        lambda row: mark(row.pressed_at, row.id),
    )
    assert newest == ["call-5", "call-4", "call-3", "call-2", "call-1"]
    longest = pages(database, lambda tx, after: calls.open_calls(tx, after, 2), calls.urgency_of)
    assert longest == ["call-2", "call-3", "call-4", "call-5", "call-1"]


def test_alarms(database):
    changes = [alarm_change(number, at=NOW + (number > 3)) for number in range(1, 6)]
    database.write_here(lambda tx: Dispatch().plan(tx, decided(*changes), NOW))
    expected = [f"alarm-silent-{number}" for number in range(5, 0, -1)]
    newest = pages(
        database,
        lambda tx, before: alarms.alarms(tx, wanted={}, is_open=True, before=before, limit=2),
        lambda row: mark(row.activated_at, row.id),
    )
    assert newest == expected
    urgent = pages(database, lambda tx, after: alarms.open_alarms(tx, after, 2), alarms.urgency_of)
    assert sorted(urgent) == sorted(expected)
    assert set(urgent[:2]) == {"alarm-silent-4", "alarm-silent-5"}


def test_rides(database):
    rows = [
        {
            "id": f"ride-{number}", "person_id": "wang", "device_id": "bike-001", "command_id": f"command-{number}",
            "state": "never_began", "asked_at": NOW, "deadline_at": NOW, "changed_at": NOW,
        }
        for number in range(5)
    ]  # fmt: skip
    database.write_here(lambda tx: tx.execute(ride.insert(), rows))
    seen = pages(
        database,
        lambda tx, before: rides.of_person(tx, "wang", before, 2),
        lambda row: mark(row.asked_at, row.id),
    )
    assert seen == [f"ride-{number}" for number in range(4, -1, -1)]


@given(st.integers(0, 10**15 - 1), st.text(max_size=40))
def test_a_mark_is_read_as_it_was_written(at, identity):
    assert place_of(mark(at, identity)) == (at, identity)
    assert place_of(mark(3, at, identity), 2) == (3, at, identity)


@pytest.mark.parametrize(
    ("text", "numbers"), [("", 1), ("x", 1), ("-5", 1), ("5", 2), ("5.x", 2), ("9" * 16, 1), ("٣", 1)]
)
def test_what_is_no_mark_is_refused(text, numbers):
    with pytest.raises(ProblemError):
        place_of(text, numbers)
