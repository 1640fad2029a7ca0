"""What dispatch writes for the rules' decisions, on both databases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, update

from cloud.dispatch import floods, orders
from cloud.dispatch.planner import Dispatch
from cloud.tables import (
    alarm,
    alarm_transition,
    call,
    call_transition,
    metadata,
    outbox,
    work_order,
    work_order_transition,
)
from fleet.incident import ALARM, AlarmEvent, AlarmState, CallEvent, CallState, OrderEvent, Priority
from fleet.lifecycle import IllegalTransitionError
from tests.unit.dispatch_cases import (
    CHANNELS,
    NOW,
    acknowledge,
    add_people,
    alarm_change,
    call_change,
    decided,
    definition,
    escalation,
    everything,
    need_change,
    press,
    rows,
    waiting,
)

pytest_plugins = ("tests.adapters.postgres_fixture",)

DISPATCH = Dispatch(CHANNELS)


def plan(database, *changes, now=NOW):
    return database.write_here(lambda tx: DISPATCH.plan(tx, decided(*changes), now))


def test_a_press_is_a_call_and_an_urgent_page_on_every_channel(database):
    changes = plan(database, press())
    assert changes == [
        {
            "topic": "call",
            "id": "call-1",
            "device_id": "room-001",
            "kind": "nursing_room",
            "state": "calling",
            "step": "press",
            "escalation": 0,
            "at": NOW,
            "actor": "",
        }
    ]
    (stored,) = database.read_here(lambda tx: rows(tx, call))
    assert (stored["state"], stored["pressed_at"], stored["received_at"]) == ("calling", NOW, NOW + 40)
    pages = database.read_here(lambda tx: rows(tx, outbox))
    assert {page["channel"] for page in pages} == set(CHANNELS)
    assert {(page["urgent"], page["available_at"], page["reference"]) for page in pages} == {(1, NOW, "call-1")}
    assert len({page["delivery_id"] for page in pages}) == len(CHANNELS)


def everyday():
    """A day's decisions, batch by batch."""
    silent = definition(skill="repair")
    return [
        (NOW, [press(), alarm_change(1, of=silent), need_change()]),
        (NOW + 1000, [escalation(1, at=NOW + 1000), alarm_change(2, of=silent, at=NOW + 1000)]),
        (NOW + 2000, [acknowledge(at=NOW + 2000)]),
        (
            NOW + 3000,
            [
                alarm_change(
                    1, AlarmEvent.ACKNOWLEDGE, AlarmState.UNACKNOWLEDGED, at=NOW + 3000, of=silent, actor="p1"
                ),
                alarm_change(1, AlarmEvent.RETURN, AlarmState.ACKNOWLEDGED, at=NOW + 3000, of=silent),
            ],
        ),
        (NOW + 4000, [call_change(CallEvent.ATTEND, CallState.ACKNOWLEDGED, at=NOW + 4000, press=2)]),
        (NOW + 5000, [call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.ATTENDED, at=NOW + 5000, press=3)]),
        (NOW + 6000, [need_change(wanted=False, at=NOW + 6000), need_change(at=NOW + 6500)]),
    ]


def test_the_same_decisions_again_change_nothing(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew"), ("p2", "crew")))
    day = everyday()
    for now, changes in day:
        assert plan(database, *changes, now=now)
    before = database.read_here(everything)
    for now, changes in [*day, *reversed(day)]:
        assert plan(database, *changes, now=now + 60_000) == []
    assert database.read_here(everything) == before


def test_a_call_keeps_every_second(database):
    for now, changes in everyday():
        plan(database, *changes, now=now)
    (stored,) = database.read_here(lambda tx: rows(tx, call))
    assert (
        stored["state"],
        stored["acknowledged_at"],
        stored["acknowledged_by"],
        stored["attended_at"],
        stored["cleared_at"],
    ) == ("cleared", NOW + 2000, "p1", NOW + 4000, NOW + 5000)
    steps = [row["step"] for row in database.read_here(lambda tx: rows(tx, call_transition))]
    assert steps == ["press", "escalate", "acknowledge", "attend", "clear_at_origin"]


def test_no_page_waits_after_acknowledgement_and_those_paged_are_told(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew")))
    plan(database, press(), press(2))
    plan(database, escalation(1, at=NOW + 1000), now=NOW + 1000)
    plan(database, acknowledge(at=NOW + 2000), now=NOW + 2000)
    left = database.read_here(waiting)
    assert [(notice.reference, notice.priority, notice.title_en) for notice in left] == [
        ("call-2", "emergency", "Emergency call (on-call crew): room-002"),
        ("call-1", "low", "P1 is on the way: room-001"),
    ]


@pytest.mark.parametrize("event", [CallEvent.ATTEND, CallEvent.CLEAR_AT_ORIGIN])
def test_somebody_at_the_place_calls_the_pages_off_as_well(database, event):
    plan(database, press())
    plan(database, call_change(event, CallState.CALLING, at=NOW + 500, press=2), now=NOW + 500)
    assert [notice.priority for notice in database.read_here(waiting)] == ["low"]


def test_press_and_acknowledgement_in_one_batch_leave_no_page(database):
    plan(database, press(), acknowledge(at=NOW))
    assert [notice.priority for notice in database.read_here(waiting)] == ["low"]


def test_a_further_press_after_acknowledgement_pages_again_and_its_ladder_starts_again(database):
    plan(database, press())
    plan(database, escalation(1, at=NOW + 1000), now=NOW + 1000)
    plan(database, acknowledge(at=NOW + 2000), now=NOW + 2000)
    again = call_change(CallEvent.PRESS, CallState.ACKNOWLEDGED, at=NOW + 3000, press=2)
    plan(database, again, now=NOW + 3000)
    plan(database, escalation(1, at=NOW + 4000), now=NOW + 4000)
    pages = [notice for notice in database.read_here(waiting) if notice.priority == "emergency"]
    assert [(page.audience, page.facts["escalation"]) for page in pages] == [("on_call", 0), ("second_crew", 1)]
    (stored,) = database.read_here(lambda tx: rows(tx, call))
    assert (stored["state"], stored["acknowledged_by"], stored["pressed_at"]) == ("calling", None, NOW)


def test_each_step_of_the_escalation_widens_the_audience_and_then_repeats(database):
    plan(database, press())
    for level in range(1, 6):
        plan(database, escalation(level, at=NOW + level), now=NOW + level)
    told = database.read_here(waiting)
    audiences = [notice.audience for notice in told]
    assert audiences == ["on_call", "second_crew", "duty_manager", "everybody", "everybody", "everybody"]
    asked = [
        ("当班人员", "on-call crew"),
        ("第二梯队", "second crew"),
        ("值班经理", "duty manager"),
        ("所有人", "everybody"),
    ]
    for notice, (zh, en) in zip(told, [*asked, asked[-1], asked[-1]], strict=True):  # people read it in the text itself
        assert zh in notice.title_zh
        assert en in notice.title_en


def test_hundreds_of_presses_are_never_grouped(database):
    plan(database, *(press(number) for number in range(1, 191)))
    assert len(database.read_here(waiting)) == 190


def test_low_alarms_stay_in_the_inbox(database):
    dust, jam = definition("dust", Priority.LOW), definition("jam", Priority.MEDIUM)
    plan(database, alarm_change(of=dust), alarm_change(of=jam))
    assert [notice.title_en for notice in database.read_here(waiting)] == ["Alarm jam: bike-001"]
    assert len(database.read_here(lambda tx: waiting(tx, "inbox"))) == 2


def test_a_flapping_alarm_is_told_once_and_acknowledging_it_calls_it_off(database):
    plan(database, alarm_change())
    before = AlarmState.UNACKNOWLEDGED
    for second in range(1, 20):
        event = AlarmEvent.RETURN if second % 2 else AlarmEvent.ACTIVATE
        plan(database, alarm_change(1, event, before, at=NOW + second), now=NOW + second)
        before = ALARM.next(before, event)
        assert len(database.read_here(waiting)) == (0 if event is AlarmEvent.RETURN else 1)
    assert before is AlarmState.RETURNED_UNACKNOWLEDGED
    plan(database, alarm_change(1, AlarmEvent.ACTIVATE, before, at=NOW + 50), now=NOW + 50)
    before = AlarmState.UNACKNOWLEDGED
    (row,) = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["channel"] == "webhook"]
    assert row["available_at"] == NOW + 10_000, "coming and going does not put it off"
    plan(database, alarm_change(1, AlarmEvent.ACKNOWLEDGE, before, at=NOW + 99, actor="p1"), now=NOW + 99)
    assert database.read_here(waiting) == []
    (stored,) = database.read_here(lambda tx: rows(tx, alarm))
    assert stored["acknowledged_by"] == "p1"
    assert len(database.read_here(lambda tx: rows(tx, alarm_transition))) == 22


def test_an_alarm_that_is_over_within_its_hold_rings_nowhere_and_one_that_stayed_longer_is_told(database):
    plan(database, alarm_change(1), alarm_change(2), alarm_change(3, of=definition("moved")))
    back = (AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED)
    plan(database, alarm_change(1, *back, at=NOW + 6_000), now=NOW + 6_000)
    latched = (AlarmEvent.RETURN_LATCHED, AlarmState.UNACKNOWLEDGED)
    plan(database, alarm_change(3, *latched, at=NOW + 6_000, of=definition("moved")), now=NOW + 6_000)
    plan(database, alarm_change(2, *back, at=NOW + 10_001), now=NOW + 10_001)
    assert sorted(notice.device_id for notice in database.read_here(waiting)) == ["bike-002", "bike-003"]
    (first,) = [row for row in database.read_here(lambda tx: rows(tx, alarm)) if row["device_id"] == "bike-001"]
    assert first["state"] == "returned_unacknowledged", "it stands on the desk all the same"


def test_five_alarms_are_five_notices_and_the_sixth_makes_them_one_with_a_list(database):
    for number in range(1, 6):
        plan(database, alarm_change(number), now=NOW + number * 100)
    assert len(database.read_here(waiting)) == 5
    plan(database, alarm_change(6), alarm_change(6, of=definition("jam")), now=NOW + 9_000)
    other, digest = sorted(database.read_here(waiting), key=lambda notice: "flood" in notice.facts)
    assert digest.facts["count"] == 6
    assert {entry["device_id"] for entry in digest.facts["alarms"]} == {f"bike-{number:03}" for number in range(1, 7)}
    assert other.facts["key"] == "jam"
    held = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["given_up_at"] is None]
    assert max(row["available_at"] for row in held if row["reference"].startswith("flood")) <= NOW + 100 + 10_000


@given(drops=st.lists(st.tuples(st.integers(0, 599), st.sampled_from(["silent", "mains"])), min_size=20, max_size=60))
@settings(max_examples=15, deadline=None)
def test_a_mass_drop_is_three_messages_in_ten_minutes(drops):
    memory = create_engine("sqlite://")
    metadata.create_all(memory)
    everything_down = [(0, key) for key in ("silent", "mains") for _ in range(floods.SHORT_MAX + 1)]
    news = sorted([*everything_down, *drops])
    with memory.begin() as tx:
        for number, (second, key) in enumerate(news):
            now = NOW + second * 1000
            DISPATCH.plan(tx, decided(alarm_change(number, of=definition(key), at=now)), now)
        told = waiting(tx)
        assert len(told) <= 3
        listed = [entry["alarm_id"] for notice in told for entry in notice.facts["alarms"]]
    memory.dispose()
    assert sorted(listed) == sorted(f"alarm-{key}-{number}" for number, (_, key) in enumerate(news))


def test_390_devices_at_once_are_one_incident_and_delay_no_emergency(database):
    plan(database, *(alarm_change(number) for number in range(390)), press())
    told = database.read_here(waiting)
    assert [(notice.kind_of, notice.facts.get("count")) for notice in told] == [("call", None), ("alarm", 390)]
    assert len(told[1].facts["alarms"]) == 390
    assert len(database.read_here(lambda tx: rows(tx, alarm))) == 390


def test_a_clock_set_back_does_not_hold_alarms_for_ever(database):
    plan(database, *(alarm_change(number) for number in range(10)))
    past = NOW - 10 * 365 * 86_400_000
    plan(database, alarm_change(99, at=past), now=past)
    held = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["reference"] == "alarm-silent-99"]
    assert {row["available_at"] for row in held} == {past + 10_000}


def test_an_alarm_with_a_skill_makes_one_order_for_the_least_busy(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew"), ("p2", "crew"), ("boss", "admin")))
    changes = plan(database, *(alarm_change(number, of=definition(skill="repair")) for number in range(4)))
    assert sorted(change["assigned_to"] for change in changes if change["topic"] == "order") == ["p1", "p1", "p2", "p2"]
    made = database.read_here(lambda tx: rows(tx, work_order))
    assert {order["state"] for order in made} == {"assigned"}
    assert {(order["due_at"], order["instructions_zh"]) for order in made} == {(NOW + 600_000, "做")}
    steps = database.read_here(lambda tx: rows(tx, work_order_transition))
    assert [step["event"] for step in steps if step["order_id"] == made[0]["id"]] == ["release", "assign"]


def test_without_a_crew_an_order_waits_and_is_given_out_later(database):
    (change,) = [change for change in plan(database, need_change()) if change["topic"] == "order"]
    assert (change["state"], change["assigned_to"]) == ("dispatchable", None)
    database.write_here(lambda tx: add_people(tx, ("p1", "crew")))
    plan(database, need_change(device_id="machine-002"))
    assert {row["assigned_to"] for row in database.read_here(lambda tx: rows(tx, work_order))} == {"p1"}


def test_a_need_has_one_open_order_and_a_new_one_when_it_comes_back(database):
    plan(database, need_change())
    plan(database, need_change(at=NOW + 1), now=NOW + 1)
    (first,) = database.read_here(lambda tx: rows(tx, work_order))
    assert first["items"] == '{"rice":3}'
    plan(database, need_change(wanted=False, at=NOW + 2), now=NOW + 2)
    plan(database, need_change(at=NOW + 3), now=NOW + 3)
    states = {order["created_at"]: order["state"] for order in database.read_here(lambda tx: rows(tx, work_order))}
    assert states == {NOW: "cancelled", NOW + 3: "dispatchable"}


def test_an_accepted_order_is_not_taken_away(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew")))
    plan(database, need_change())
    _move(database, OrderEvent.ACCEPT)
    plan(database, need_change(wanted=False, at=NOW + 2), now=NOW + 2)
    assert [row["state"] for row in database.read_here(lambda tx: rows(tx, work_order))] == ["accepted"]


def test_an_alarm_that_comes_back_opens_its_closed_order_again(database):
    database.write_here(lambda tx: add_people(tx, ("p1", "crew")))
    silent = definition(skill="repair")
    plan(database, alarm_change(of=silent))
    for event in (OrderEvent.ACCEPT, OrderEvent.TRAVEL, OrderEvent.START, OrderEvent.COMPLETE):
        _move(database, event)
    with pytest.raises(IllegalTransitionError):
        _move(database, OrderEvent.ACCEPT)
    plan(database, alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=silent, at=NOW + 1))
    plan(database, alarm_change(1, AlarmEvent.ACTIVATE, AlarmState.RETURNED_UNACKNOWLEDGED, of=silent, at=NOW + 2))
    (order,) = database.read_here(lambda tx: rows(tx, work_order))
    assert order["state"] == "assigned"
    events = [row["event"] for row in database.read_here(lambda tx: rows(tx, work_order_transition))]
    assert events == ["release", "assign", "accept", "travel", "start", "complete", "reopen", "assign"]


def _move(database, event):
    def work(tx):
        if event is OrderEvent.COMPLETE:
            tx.execute(update(work_order).values(scanned_at=NOW, scanned_by="p1"))
        (order,) = tx.execute(select(work_order)).all()
        return orders.move(tx, order, event, "p1", NOW)

    return database.write_here(work)


def test_channels_are_checked():
    assert Dispatch(("webhook",)).channels == ("inbox", "webhook")
    with pytest.raises(ValueError, match="different"):
        Dispatch(("chat", "chat"))


def test_a_notice_of_the_system_is_put_once_per_key_on_every_channel_before_all_else(database):
    def tell(key, *, urgent=True):
        facts = {"device_id": "room-001", "error": "schema"}
        return database.write_here(
            lambda tx: DISPATCH.system(
                tx, key, "无法读取的紧急消息", "An emergency nobody can read", facts, NOW, urgent=urgent
            )
        )

    assert [tell("refused:room-001:7"), tell("refused:room-001:7"), tell("refused:room-001:8", urgent=False)] == [
        3,
        0,
        3,
    ]
    found = database.read_here(lambda tx: rows(tx, outbox))
    assert [(row["channel"], row["urgent"], row["available_at"]) for row in found[:3]] == [
        (channel, 1, NOW) for channel in CHANNELS
    ]
    told = database.read_here(waiting)
    assert [(one.kind_of, one.priority, one.facts["device_name"]) for one in told] == [
        ("system", "emergency", "room-001"),
        ("system", "high", "room-001"),
    ]
    assert told[0].facts["error"] == "schema"
