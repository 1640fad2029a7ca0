"""Who acts without being on duty is taken at the word and noted; whose shift was taken is told."""

import json

import pytest
from sqlalchemy import select

from cloud.roster import off_duty
from cloud.roster.service import RosterService
from cloud.tables import outbox
from fleet.incident import CallEvent, CallState
from tests.api.roster_world import ALL_DAY, HOUR, ROSTER, bring, roster_world
from tests.unit.dispatch_cases import NOW, alarm_change, call_change, definition, need_change

FALLEN = definition("fallen")
WITHOUT_CREW = ALL_DAY.replace("on_call,crew", "on_call,sun")


@pytest.fixture
async def duty(tmp_path):
    async with roster_world(tmp_path) as world:
        world.lane.definitions[FALLEN.key] = FALLEN
        yield world


def noted(duty):
    return [
        (actor, json.loads(detail)["act"], of)
        for actor, of, detail in duty.audited("duty.not_on_duty")
        if json.loads(detail)["note"] == "not on duty"
    ]


async def open_things(duty):
    """A call, two alarms and an order that crew accepts."""
    duty.plan(call_change(CallEvent.PRESS, CallState.IDLE))
    duty.plan(alarm_change(1, of=FALLEN), alarm_change(2, of=FALLEN), need_change())
    ((order,),) = [(await duty.get("/api/v1/work-orders"))["orders"]]
    return order["id"]


async def acts(duty, order_id):
    """Every way to say that one has seen something, or does it; whether each answer says `off_duty`."""
    bulk = {"act": "acknowledge", "alarm_ids": ["alarm-fallen-2"]}
    answers = [
        await duty.post("/api/v1/calls/call-1/acknowledge"),
        await duty.post("/api/v1/alarms/alarm-fallen-1/acknowledge"),
        await duty.post("/api/v1/alarms/acts", bulk),
        await duty.post(f"/api/v1/work-orders/{order_id}/accept"),
    ]
    return [answer["off_duty"] for answer in answers]


async def test_who_is_not_on_duty_is_taken_at_the_word_and_it_is_noted(duty):
    order_id = await open_things(duty)  # while there is no roster, crew is on call and gets the order
    await bring(duty, WITHOUT_CREW)
    assert await acts(duty, order_id) == [True] * 4
    assert noted(duty) == [
        ("person-crew", "call.acknowledge", "call-1"),
        ("person-crew", "alarm.acknowledge", "alarm-fallen-1"),
        ("person-crew", "alarm.acknowledge", "1 alarms"),
        ("person-crew", "work_order.accept", order_id),
    ]
    assert (await duty.get("/api/v1/calls/call-1"))["state"] == "acknowledged"


@pytest.mark.parametrize("roster", ["", ALL_DAY])
async def test_who_is_on_duty_is_not_noted(duty, roster):
    order_id = await open_things(duty)
    if roster:
        await bring(duty, roster)
    assert await acts(duty, order_id) == [False] * 4
    assert noted(duty) == []


async def test_the_command_line_is_nobody_on_a_roster(duty):
    await bring(duty, WITHOUT_CREW)
    at = duty.world.clock.now_ms()
    written = duty.world.database.write_here(lambda tx: off_duty.note(tx, at, "command-line", "call.acknowledge", "c"))
    assert not written
    assert noted(duty) == []


async def test_the_page_says_that_it_was_noted(duty):
    await open_things(duty)
    await bring(duty, WITHOUT_CREW)
    answer = await duty.clients["crew"].post("/alarms/alarm-fallen-1/acknowledge")
    assert answer.headers["location"] == "/alarms?notice=acknowledged_off_duty#alarm-alarm-fallen-1"
    assert "您不在班" in (await duty.clients["crew"].get(answer.headers["location"])).text


def told(duty):
    query = select(outbox.c.recipient, outbox.c.channel, outbox.c.notification).order_by(outbox.c.id)
    rows = duty.world.database.read_here(lambda tx: tx.execute(query).all())
    return [(row.channel, row.recipient, json.loads(row.notification)["title_en"]) for row in rows]


async def test_whose_shift_was_taken_is_told_and_so_is_who_got_it_unasked(duty):
    duty.world.services.get(RosterService).channels = ("inbox", "webhook", "person")
    await bring(duty, WITHOUT_CREW)  # crew is free
    await duty.post(f"{ROSTER}/take-over", {"from_person": "wu", "at": NOW + HOUR, "until": NOW + 2 * HOUR})
    (_, _, first), _ = told(duty)
    assert first.startswith("李师傅 took over your shift (Second crew): 01-15 ")
    assert told(duty) == [("inbox", "", first), ("person", "person-wu", first)]
    later = {"at": NOW + 3 * HOUR, "until": NOW + 4 * HOUR}
    await duty.post(f"{ROSTER}/take-over", {"from_person": "sun", "to_person": "crew", **later}, "admin")
    assert [(who, words.split(":")[0]) for channel, who, words in told(duty)[2:] if channel == "person"] == [
        ("person-sun", "李师傅 took over your shift (On call)"),
        ("person-crew", "You do 孙师傅's shift (On call)"),
    ]
    await duty.post(f"{ROSTER}/take-over", {"from_person": "crew", "to_person": "admin", **later}, "admin", 409)
    assert len(told(duty)) == 6  # what was refused is told to nobody
