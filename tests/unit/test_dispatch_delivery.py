"""The outbox and people's own channels: recalled in time, logged, repeated under one id, never in each other's way."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from cloud.dispatch import leases, notices
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.personal import PersonalNotices
from cloud.dispatch.planner import Dispatch
from cloud.history import bounds as history
from cloud.model import Notification
from cloud.ports import AddressRefusedError, NotDeliveredError
from cloud.tables import contact_point, delivery_attempt, outbox
from fleet import milestones
from fleet.clock import ManualClock
from tests.unit.delivery_cases import EVERY_CHANNEL, Telephone, add_crew, on_shift, sqlite_database
from tests.unit.dispatch_cases import NOW, SOON_S, Watched, acknowledge, decided, press, rows
from tests.unit.test_dispatch_outbox import REAL_NOW, Receiver

DISPATCH = Dispatch(EVERY_CHANNEL)


@pytest.fixture
def watched(tmp_path):
    opened = sqlite_database(tmp_path)

    def people(tx):
        add_crew(tx, {"ann": ("push", "sms", "voice"), "bob": ("push",)})
        on_shift(tx, "on_call", "ann")
        on_shift(tx, "second_crew", "bob")

    opened.write_here(people)
    yield Watched(opened)
    opened.close()


def plan(database, *changes, now=NOW):
    return database.write_here(lambda tx: DISPATCH.plan(tx, decided(*changes), now))


@asynccontextmanager
async def running(database, clock, *personal, common=(), owner="one", **options):
    options = {"poll_s": 0.02, "real_now_ms": lambda: REAL_NOW, **options}
    workers = Outbox(database, clock, common, personal=personal, randomness=random.Random(1), owner=owner, **options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(workers.run())
        try:
            yield workers
        finally:
            task.cancel()


async def attempts_of(watched, number, **wanted):
    """The log, as soon as it holds so many lines that fit."""

    def fitting():
        found = watched.read_here(lambda tx: rows(tx, delivery_attempt))
        return [row for row in found if all(row[name] == value for name, value in wanted.items())]

    async with asyncio.timeout(SOON_S), watched.changed:
        await watched.changed.wait_for(lambda: len(fitting()) >= number)
    return fitting()


async def test_every_attempt_stands_in_the_log_with_how_it_ended(watched):
    push = Telephone("push", ann=[NotDeliveredError("HTTP 500")])
    sms = Telephone("sms", ann=[AddressRefusedError("HTTP 400")])
    clock = ManualClock(NOW)
    plan(watched, press())
    async with running(watched, clock, push, sms, Telephone("voice"), common=[Receiver()]) as workers:
        await attempts_of(watched, 1, channel="voice")  # brought forward twice: push failed, then SMS was refused
        clock.advance(seconds=2)
        workers.wake()
        log = await attempts_of(watched, 2, channel="push")
    assert [(row["attempt"], row["outcome"], row["error"]) for row in log] == [
        (1, "failed", "HTTP 500"), (2, "delivered", ""),
    ]  # fmt: skip
    assert len({row["delivery_id"] for row in log}) == 1
    (refused,) = await attempts_of(watched, 1, channel="sms")
    assert (refused["outcome"], refused["recipient"], refused["urgent"]) == ("refused", "ann", 1)
    assert (await attempts_of(watched, 1, channel="webhook"))[0]["recipient"] == ""
    failing = [row for row in watched.read_here(lambda tx: rows(tx, contact_point)) if row["failing_since"]]
    assert [(row["id"], row["failure"]) for row in failing] == [("ann-sms-1", "HTTP 400")]


async def test_an_acknowledgement_while_the_worker_holds_the_lease_recalls_the_page(watched):
    """The commit comes between the lease and the sending: the last look before it finds the row withdrawn."""
    push, clock = Telephone("push"), ManualClock(NOW)
    plan(watched, press())
    done = []

    def acknowledge_in_between(milestone):
        if milestone == "dispatch.after_lease" and not done:
            done.append(milestone)
            plan(watched, acknowledge(at=NOW), now=NOW)

    before = milestones.observe(acknowledge_in_between)
    try:
        async with running(watched, clock, push):
            (recalled,) = await attempts_of(watched, 1, outcome="recalled")
            await attempts_of(watched, 1, urgent=2)
    finally:
        milestones.observe(before)
    assert recalled["channel"] == "push"
    assert ["on the way" in title for _, title, _ in push.got] == [True]
    assert not any("Emergency call" in title for _, title, _ in push.got)
    pages = [row for row in watched.read_here(lambda tx: rows(tx, outbox)) if row["urgent"] == 1]
    assert {row["last_error"] for row in pages} == {"withdrawn: acknowledged"}


async def test_a_worker_killed_between_sending_and_writing_repeats_under_the_same_id(watched):
    push, clock = Telephone("push"), ManualClock(NOW)
    plan(watched, press())

    class Killed(BaseException):
        """What a kill does to the code that runs."""

    def kill(milestone):
        if milestone == "dispatch.before_delivered_mark":
            raise Killed

    before = milestones.observe(kill)
    try:
        with pytest.raises(BaseExceptionGroup):
            async with running(watched, clock, push):
                await attempts_of(watched, 1)
    finally:
        milestones.observe(before)
    assert watched.read_here(lambda tx: rows(tx, delivery_attempt)) == []
    async with running(watched, clock, push, owner="two", sole_owner=True):
        (again,) = await attempts_of(watched, 1, channel="push")
    assert [delivery_id for _, _, delivery_id in push.got] == [again["delivery_id"]] * 2
    assert (again["attempt"], again["outcome"]) == (2, "delivered")


async def test_dead_channels_delay_no_other_person_and_no_other_channel(watched):
    """Push hangs for everybody, SMS answers 500: the voice and the webhook go on."""
    hanging = Telephone("push")
    hanging.send_to = lambda *_, **__: asyncio.Event().wait()  # type: ignore[method-assign]
    sms = Telephone("sms", ann=[NotDeliveredError("HTTP 500")] * 1000)
    voice, webhook, clock = Telephone("voice"), Receiver(), ManualClock(NOW)
    plan(watched, press())
    async with running(watched, clock, hanging, sms, voice, common=[webhook]) as workers:
        await webhook.until(lambda: webhook.got)
        clock.advance(seconds=20)
        workers.wake()
        await attempts_of(watched, 1, channel="sms", outcome="failed")
        clock.advance(seconds=20)
        workers.wake()
        await attempts_of(watched, 1, channel="voice", outcome="delivered")
    assert [who for who, _, _ in voice.got] == ["ann"]


async def test_nobody_is_paged_at_an_address_that_was_removed(watched):
    push = Telephone("push")
    plan(watched, press())
    watched.write_here(lambda tx: tx.execute(contact_point.delete().where(contact_point.c.channel == "push")))
    async with running(watched, ManualClock(NOW), push, Telephone("sms")):
        (refused,) = await attempts_of(watched, 1, channel="push")
        await attempts_of(watched, 1, channel="sms", outcome="delivered")
    assert (refused["outcome"], refused["error"], push.got) == ("refused", "this contact point was removed", [])


async def test_a_notice_for_a_person_is_routed_by_the_workers(watched):
    push, clock = Telephone("push"), ManualClock(NOW)
    router = PersonalNotices(watched, clock, EVERY_CHANNEL)
    notice = Notification("alarm", "alarm-1", "high", "bike-1", "报警", "Alarm", {}, NOW)
    made = notices.outbox_rows(notice, "new", EVERY_CHANNEL, urgent=False, available_at=NOW, recipients=["ann"])
    watched.write_here(lambda tx: notices.put(tx, made))
    async with running(watched, clock, push, router) as workers:
        router.wake_outbox = workers.wake
        await attempts_of(watched, 1, channel="push", outcome="delivered")
    assert [(who, title) for who, title, _ in push.got] == [("ann", "Alarm")]
    assert watched.read_here(leases.counts)["waiting"] == 2, "inbox and webhook, which nobody served"


def outages_of(watched, channel):
    return [row for row in watched.read_here(lambda tx: rows(tx, outbox)) if row["reference"] == f"channel:{channel}"]


async def test_one_wrong_number_is_no_outage_and_a_dead_gateway_is_one(watched):
    sms = Telephone("sms", ann=[AddressRefusedError("HTTP 400")])
    plan(watched, press())
    clock = ManualClock(NOW)
    clock.advance(seconds=20)
    async with running(watched, clock, sms, Telephone("push"), common=[Receiver("inbox")]):
        await attempts_of(watched, 1, channel="sms", outcome="refused")
    assert outages_of(watched, "sms") == []
    dead = Telephone("push", ann=[NotDeliveredError("HTTP 503")] * 1000)
    plan(watched, press(2, at=clock.now_ms() + 1), now=clock.now_ms() + 1)
    clock.advance(seconds=11)
    async with running(watched, clock, dead, common=[Receiver("inbox")], owner="two", sole_owner=True):
        await attempts_of(watched, 1, channel="push", outcome="failed")
    assert outages_of(watched, "push")


async def test_the_log_is_kept_for_ninety_days(watched):
    line = {
        "delivery_id": "d", "reference": "r", "kind_of": "call", "channel": "sms", "recipient": "ann",
        "contact_id": "c", "attempt": 1, "urgent": 1, "outcome": "delivered", "duration_ms": 1, "error": "",
    }  # fmt: skip
    ages_days = {1: 89, 2: 91}
    lines = [{**line, "id": number, "at": NOW - days * 86_400_000} for number, days in ages_days.items()]
    watched.write_here(lambda tx: tx.execute(delivery_attempt.insert(), lines))
    assert await history.prune(watched, ManualClock(NOW), 400, 30) == {"delivery_attempt": 1}
    assert [row["id"] for row in watched.read_here(lambda tx: rows(tx, delivery_attempt))] == [1]
