"""Whom an emergency reaches at each step of its ladder, and over which channels."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from cloud.dispatch import attempts, audience, leases
from cloud.dispatch.leases import Leased, Moment, Outcome
from cloud.dispatch.planner import Dispatch
from cloud.model import Notification, Recipient
from cloud.tables import audit, contact_point, outbox
from fleet.incident import CallEvent, CallState
from tests.unit.delivery_cases import (
    EVERY_CHANNEL,
    add_contact,
    add_crew,
    fail_contact,
    on_shift,
    personal,
    sqlite_database,
)
from tests.unit.dispatch_cases import (
    NOW,
    acknowledge,
    alarm_change,
    call_change,
    decided,
    definition,
    escalation,
    press,
    rows,
    waiting,
)

pytest_plugins = ("tests.adapters.postgres_fixture",)

DISPATCH = Dispatch(EVERY_CHANNEL)
TIERS = {"on_call": ("ann",), "second_crew": ("bob",), "duty_manager": ("cat",)}


@pytest.fixture
def lite(tmp_path):
    opened = sqlite_database(tmp_path)
    yield opened
    opened.close()


def plan(database, *changes, now=NOW):
    return database.write_here(lambda tx: DISPATCH.plan(tx, decided(*changes), now))


def staffed(database, channels=("push", "chat", "sms", "voice")):
    """One reachable person per tier, and `dan`, who is on no shift."""

    def work(tx):
        add_crew(tx, dict.fromkeys(("ann", "bob", "cat", "dan"), channels))
        for tier, people in TIERS.items():
            on_shift(tx, tier, *people)

    database.write_here(work)


def lease(database, now_ms, channel, count=10, token="one"):
    moment = Moment(now_ms, 1, 600_000, 8_000)
    return database.write_here(
        lambda tx: leases.lease(tx, moment, urgent=1, room={channel: count}, token=token, until_ms=8_001)
    )


def finish(database, *outcomes):
    def work(tx):
        fenced = leases.finish(tx, outcomes)
        return fenced, attempts.settle(tx, outcomes)

    return database.write_here(work)


def bridged(database):
    found = database.read_here(
        lambda tx: tx.execute(select(audit.c.detail).where(audit.c.action == "call.audience_bridged")).scalars().all()
    )
    return [(detail["audience"], detail["reason"], detail["instead"]) for detail in map(json.loads, found)]


def test_a_person_on_call_is_pushed_at_once_then_texted_then_called(database):
    staffed(database)
    plan(database, press())
    assert sorted(personal(database, outbox)) == [
        ("ann", "chat", 0, "waiting"), ("ann", "push", 0, "waiting"), ("ann", "sms", 20, "waiting"),
        ("ann", "voice", 40, "waiting"),
    ]  # fmt: skip
    (page,) = database.read_here(lambda tx: waiting(tx, "push"))
    assert (page.audience, page.facts["asked"], page.facts["passed_over"]) == ("on_call", "Ann", [])
    assert len(database.read_here(lambda tx: waiting(tx, "webhook"))) == 1
    assert database.read_here(lambda tx: waiting(tx, "person")) == []


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (("push", "voice"), {"push": 0, "voice": 20}),
        (("sms", "voice"), {"sms": 0, "voice": 20}),
        (("voice",), {"voice": 0}),
        (("mail", "sms"), {"mail": 0, "sms": 20}),
        (("push",), {"push": 0}),
    ],
)
def test_a_channel_somebody_has_not_is_not_waited_for(lite, channels, expected):
    staffed(lite, channels)
    plan(lite, press())
    assert {channel: at for _, channel, at, _ in personal(lite, outbox)} == expected


def test_a_failing_contact_is_tried_and_holds_nothing_back(lite):
    staffed(lite, ("push", "sms"))
    lite.write_here(lambda tx: fail_contact(tx, "ann-push-1"))
    plan(lite, press())
    assert personal(lite, outbox) == [("ann", "push", 0, "waiting"), ("ann", "sms", 0, "waiting")]


def test_each_level_asks_its_audience(lite):
    staffed(lite, ("push",))
    changes = [press(), *(escalation(level, at=NOW + level) for level in (1, 2, 3, 4))]
    for change in changes:
        plan(lite, change)
    asked = [one.audience for one in lite.read_here(waiting)]
    assert asked == ["on_call", "second_crew", "duty_manager", "everybody", "everybody"]
    paged = [who for who, *_ in personal(lite, outbox)]
    assert paged == ["ann", "bob", "cat", *("ann", "bob", "cat", "dan") * 2]
    assert bridged(lite) == []


def test_an_audience_with_nobody_on_duty_is_bridged_in_the_same_commit(database):
    def work(tx):
        add_crew(tx, {"cat": ("push",)})
        on_shift(tx, "duty_manager", "cat")

    database.write_here(work)
    plan(database, press())
    assert [row[:2] for row in personal(database, outbox)] == [("cat", "push")]
    assert bridged(database) == [
        ("on_call", "nobody is on duty", "duty_manager"), ("second_crew", "nobody is on duty", "duty_manager")
    ]  # fmt: skip


@pytest.mark.parametrize("why", ["has_none", "not_verified", "fails"])
def test_a_person_on_call_without_a_reachable_channel(lite, why):
    """The bug of alert managers: the page goes nowhere and nobody is told. Here the next audience is paged at once."""

    def work(tx):
        add_crew(tx, {"ann": (), "bob": ("sms",)})
        on_shift(tx, "on_call", "ann")
        on_shift(tx, "second_crew", "bob")
        if why != "has_none":
            contact = add_contact(tx, "ann", "push", verified=why == "fails")
            if why == "fails":
                fail_contact(tx, contact)

    lite.write_here(work)
    plan(lite, press())
    found = personal(lite, outbox)
    assert ("bob", "sms", 0, "waiting") in found
    assert bridged(lite) == [("on_call", "nobody can be reached", "second_crew")]
    assert ("ann" in {who for who, *_ in found}) is (why == "fails")  # it may work again: it is tried all the same
    (page,) = lite.read_here(waiting)
    assert (page.audience, page.facts["passed_over"]) == ("second_crew", ["on_call"])
    assert lite.read_here(lambda tx: audience.reachable(tx, ["ann", "bob"])) == {"bob"}


def test_without_any_personal_channel_the_common_ones_ask_the_people_on_duty_as_before(lite):
    lite.write_here(lambda tx: add_crew(tx, {"ann": ()}))
    plan(lite, press())
    (page,) = lite.read_here(waiting)
    assert (page.audience, page.facts["asked"]) == ("on_call", "Ann")
    assert bridged(lite) == []
    assert personal(lite, outbox) == []


def test_pages_after_acknowledgement(database):
    """The bug of alert managers: what was planned goes on. Here all of it is withdrawn, leased or not."""
    staffed(database)
    plan(database, press())
    (held,) = lease(database, NOW, "push")
    later = NOW + 3000
    plan(database, acknowledge(at=later, actor="ann"), now=later)
    planned = [row for row in personal(database, outbox) if row[2] > 3 or row[1] == "chat"]
    assert {state for *_, state in planned} == {"withdrawn"}
    urgent = [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["urgent"] == 1]
    assert all(row["given_up_at"] == later for row in urgent)
    assert database.read_here(lambda tx: leases.still_wanted(tx, [held])) == frozenset()
    assert lease(database, NOW + 60_000, "sms") == []


def test_who_was_paged_is_told_by_the_same_ways_that_somebody_comes_and_that_it_is_over(lite):
    staffed(lite)
    plan(lite, press())
    lease(lite, NOW, "push")
    plan(lite, acknowledge(at=NOW + 3000, actor="dan"), now=NOW + 3000)
    plan(lite, call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.ACKNOWLEDGED, at=NOW + 9000), now=NOW + 9000)
    found = [row for row in lite.read_here(lambda tx: rows(tx, outbox)) if row["urgent"] == 2]
    told = [(row["channel"], row["recipient"], row["available_at"] - NOW) for row in found]
    assert told == [
        ("inbox", "", 3000), ("webhook", "", 3000), ("push", "ann", 3000),
        ("inbox", "", 9000), ("webhook", "", 9000), ("push", "ann", 9000),
    ]  # fmt: skip


def test_resolve_waits_for_a_group_timer(lite):
    """The bug of alert managers: "it is over" waits with the next group. Here it leaves at once, and before a flood."""
    staffed(lite)
    plan(lite, press(), *(alarm_change(number) for number in range(1, 50)))
    lease(lite, NOW, "webhook")
    plan(lite, call_change(CallEvent.CLEAR_AT_ORIGIN, CallState.CALLING, at=NOW + 1000), now=NOW + 1000)
    moment = Moment(NOW + 1000, 1, 600_000, 8_000)
    due = lite.write_here(
        lambda tx: leases.lease(tx, moment, urgent=2, room={"webhook": 64}, token="two", until_ms=9_000)
    )
    assert [leased.notification().facts["step"] for leased in due] == ["clear_at_origin"]


def test_a_channel_that_fails_brings_the_next_one_forward_once(lite):
    staffed(lite, ("push", "chat", "sms", "voice"))
    plan(lite, press())
    (push,), (chat,) = lease(lite, NOW, "push"), lease(lite, NOW, "chat")
    finish(lite, Outcome(push, NOW + 100, "HTTP 500", NOW + 300, "failed"))
    assert ("ann", "sms", 20, "waiting") in personal(lite, outbox), "chat may still reach them"
    finish(lite, Outcome(chat, NOW + 200, "HTTP 500", NOW + 400, "failed"))
    assert ("ann", "sms", 0, "waiting") in personal(lite, outbox)
    assert ("ann", "voice", 40, "waiting") in personal(lite, outbox), "SMS may still reach them"
    (sms,) = lease(lite, NOW + 300, "sms")
    finish(lite, Outcome(sms, NOW + 5000, "HTTP 400", result="refused"))
    assert ("ann", "voice", 5, "waiting") in personal(lite, outbox)
    failing = lite.read_here(lambda tx: rows(tx, contact_point))
    assert [row["id"] for row in failing if row["failing_since"] is not None] == ["ann-sms-1"]


def test_what_was_on_its_way_is_counted_as_too_late(lite):
    staffed(lite, ("push",))
    plan(lite, press())
    (push,) = lease(lite, NOW, "push")
    plan(lite, acknowledge(at=NOW + 10), now=NOW + 10)
    assert finish(lite, Outcome(push, NOW + 20)) == (0, 1)
    (found,) = lite.read_here(lambda tx: rows(tx, attempts.delivery_attempt))
    assert (found["outcome"], found["recipient"], found["reference"]) == ("too_late", "ann", "call-1")


def test_alarms_go_to_who_is_on_call_and_has_the_skill(lite):
    def work(tx):
        add_crew(tx, {"ann": ("push",), "bob": ("push",)})
        on_shift(tx, "on_call", "ann", "bob")

    lite.write_here(work)
    notice = Notification("alarm", "a", "high", "bike-1", "", "", {"skill": "repair"}, NOW)
    assert lite.read_here(lambda tx: audience.recipients(tx, notice, NOW)) == ["ann", "bob"]
    order = Notification("order", "o", "medium", "bike-1", "", "", {"assigned_to": "bob"}, NOW)
    assert lite.read_here(lambda tx: audience.recipients(tx, order, NOW)) == ["bob"]
    low = Notification("alarm", "a", "low", "bike-1", "", "", {}, NOW)
    assert lite.read_here(lambda tx: audience.recipients(tx, low, NOW)) == []
    assert definition().key  # the table of the tests


def test_an_urgent_notice_of_the_system_finds_the_duty_manager(lite):
    staffed(lite)
    lite.write_here(lambda tx: DISPATCH.system(tx, "k", "坏了", "Broken", {"error": "x"}, NOW))
    assert sorted(personal(lite, outbox)) == [
        ("cat", "chat", 0, "waiting"), ("cat", "push", 0, "waiting"), ("cat", "sms", 0, "waiting"),
    ]  # fmt: skip


LADDER = (("on_call", 0), ("second_crew", 60), ("duty_manager", 120), ("everybody", 180), ("everybody", 240))


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    restarts=st.sets(st.integers(0, 13), max_size=6),
    repeats=st.sets(st.integers(0, 4), max_size=3),
    until=st.integers(1, 14),
)
def test_escalation_never_resumes_after_a_restart(tmp_path_factory, restarts, repeats, until):
    """The bug of alert managers. Here who was paged when is the ladder's table, whatever was restarted and repeated."""
    database = sqlite_database(tmp_path_factory.mktemp("ladder"))
    try:
        staffed(database, ("push", "sms"))
        sent = []
        levels = {after: level for level, (_, after) in enumerate(LADDER)}
        for look in range(until):
            second = look * 20
            now = NOW + second * 1000
            if second in levels:
                level = levels[second]
                change = press() if level == 0 else escalation(level, at=now)
                for _ in range(2 if level in repeats else 1):  # the same decision committed again
                    plan(database, change, now=now)
            if look in restarts:  # killed with rows in hand, and started again as the only owner
                for channel in ("push", "sms"):
                    lease(database, now, channel, token=f"dead-{second}")
                database.write_here(leases.release_all)
            for channel in ("push", "sms"):
                leased = lease(database, now, channel, token=f"t{second}")
                sent += [(row.recipient.person_id, channel, second) for row in leased]
                finish(database, *(Outcome(row, now) for row in leased))
        people = {tier: list(names) for tier, names in TIERS.items()} | {"everybody": ["ann", "bob", "cat", "dan"]}
        expected = [
            (who, channel, after + wait)
            for tier, after in LADDER
            for who in people[tier]
            for channel, wait in (("push", 0), ("sms", 20))
            if after + wait < until * 20
        ]
        assert sorted(sent) == sorted(expected)
    finally:
        database.close()


def test_a_contact_that_was_removed_has_no_address(lite):
    staffed(lite, ("push",))
    plan(lite, press())
    lite.write_here(lambda tx: tx.execute(contact_point.delete()))
    (leased,) = lease(lite, NOW, "push")
    assert isinstance(leased, Leased)
    assert leased.recipient == Recipient("ann", "ann-push-1", "", "zh_CN")
