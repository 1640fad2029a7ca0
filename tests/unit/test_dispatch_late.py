"""Channels that were away: what they bring when they come back, and that one receiver takes no room from the others."""

import random

import pytest
from sqlalchemy import func, insert, select

from cloud.dispatch import attempts, leases, notices, personal
from cloud.dispatch.letters import EMERGENCY, ORDINARY, decode
from cloud.dispatch.outbox import ALL_ELSE, EMERGENCIES, Outbox
from cloud.dispatch.planner import Dispatch
from cloud.dispatch.quotas import NOTICES_MAX, WINDOW_S
from cloud.metrics import NOTIFY_SECONDS
from cloud.model import Notification
from cloud.supervision.upkeep import KEPT_S, prune
from cloud.synthetic import PROBE_CHANNEL
from cloud.tables import contact_point, delivery_attempt, outbox
from fleet.clock import ManualClock
from tests.unit.delivery_cases import EVERY_CHANNEL, Telephone, add_crew, on_shift, sqlite_database
from tests.unit.dispatch_cases import NOW, decided, press, rows
from tests.unit.test_dispatch_outbox import REAL_NOW, Receiver

MINUTE_S = 60.0


class Bench:
    """The outbox's own steps, one after the other: lease, send, write down. `works`: which channels take something."""

    def __init__(self, folder, *people):
        self.database, self.clock = sqlite_database(folder), ManualClock(NOW)
        self.works = {"push": True, "mail": True}
        self.database.write_here(lambda tx: add_crew(tx, dict(people)))
        self.workers = Outbox(
            self.database, self.clock, [], personal=[Telephone(name) for name in self.works], owner="one",
            real_now_ms=lambda: REAL_NOW, randomness=random.Random(1),
        )  # fmt: skip
        self.got = []
        self.tokens = 0

    def tell(self, number):
        """One alarm for ann, as the channel `person` brings it."""
        notification = Notification(
            "alarm", f"alarm-{number}", "high", "bike-1", "报警", f"Alarm {number}", {}, self.clock.now_ms()
        )

        def work(tx):
            (row,) = notices.outbox_rows(
                notification, f"new{number}", ["person"], urgent=ORDINARY, available_at=NOW, recipients=["ann"]
            )
            notices.put(tx, [row])
            now_ms = self.clock.now_ms()
            return personal.route(tx, notification, "ann", row["delivery_id"], EVERY_CHANNEL, now_ms=now_ms)

        return self.database.write_here(work)

    def deliver(self, urgency=ALL_ELSE, urgent=ORDINARY, room=8):
        """One look of the workers; what was tried."""
        self.tokens += 1

        def work(tx):
            moment = self.workers._moment(urgency)
            leased = leases.lease(
                tx, moment, urgent=urgent, room=dict.fromkeys(self.works, room), token=str(self.tokens),
                until_ms=REAL_NOW + 1,
            )  # fmt: skip
            outcomes = [self._try(urgency, one) for one in leased]
            self.workers._finish(tx, outcomes)
            return leased

        return self.database.write_here(work)

    def _try(self, urgency, leased):
        takes = self.works[leased.channel]
        if callable(takes):
            takes = takes(leased)
        if takes:
            self.got.append((self.clock.now_ms(), leased.channel, leased.notification()))
        result = attempts.DELIVERED if takes else attempts.FAILED
        return self.workers._outcome(urgency, leased, None if takes else "HTTP 500", result)

    def pass_time(self, seconds):
        for _ in range(round(seconds / 10)):
            self.clock.advance(seconds=10)
            self.deliver()
            self.database.write_here(self._send_digest)

    def _send_digest(self, tx):
        return personal.send_digest(tx, "ann", EVERY_CHANNEL, now_ms=self.clock.now_ms())


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(*people):
        made.append(Bench(tmp_path, *people))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


def counted(notification):
    return notification.facts["count"] if notification.kind_of == "digest" else 1


@pytest.mark.parametrize("channels", [("push",), ("push", "mail")], ids="+".join)
def test_a_channel_that_was_away_for_hours_brings_no_heap_and_forgets_nothing(bench, channels):
    bench = bench(("ann", channels))
    bench.works = dict.fromkeys(bench.works, False)
    told = 0
    for minute in range(0, 120, 2):
        told += 1
        bench.tell(told)
        bench.pass_time(2 * MINUTE_S)
        if minute == 80:
            bench.works = dict.fromkeys(bench.works, True)
    bench.pass_time(30 * MINUTE_S)
    for channel in channels:
        mine = [(at, one) for at, name, one in bench.got if name == channel]
        for begin, _ in mine:
            within = [one for at, one in mine if begin <= at < begin + WINDOW_S * 1000]
            assert len(within) <= NOTICES_MAX, [(at - begin, one.title_en) for at, one in mine]
        assert mine[0][0] >= NOW + 80 * MINUTE_S * 1000
    first = [one for _, name, one in bench.got if name == channels[0]]
    assert sum(counted(one) for one in first) == told, "each alarm was said once, most of them in digests"
    point = bench.database.read_here(lambda tx: rows(tx, contact_point))[0]
    assert (point["failing_since"], point["delivered_at"] is not None) == (None, True)


def test_a_person_whose_only_way_failed_is_told_again_when_it_works(bench):
    bench = bench(("ann", ("push",)))
    bench.works["push"] = False
    bench.tell(1)
    bench.pass_time(15 * MINUTE_S)
    assert bench.database.read_here(lambda tx: rows(tx, contact_point))[0]["failing_since"] is not None
    assert bench.got == []
    bench.works["push"] = True
    bench.pass_time(11 * MINUTE_S)
    assert [counted(one) for _, _, one in bench.got] == [1]
    assert bench.tell(2) == "sent"


def test_what_another_channel_brought_is_not_said_again(bench):
    bench = bench(("ann", ("push", "mail")))
    bench.works["mail"] = False
    bench.tell(1)
    bench.pass_time(30 * MINUTE_S)
    assert [(channel, one.title_en) for _, channel, one in bench.got] == [("push", "Alarm 1")]
    states = [(row["channel"], row["last_error"]) for row in bench.database.read_here(lambda tx: rows(tx, outbox))]
    assert ("mail", "grouped: into the next digest, after HTTP 500") in states


def test_what_somebody_acknowledged_meanwhile_does_not_come_back_in_a_digest(bench):
    bench = bench(("ann", ("push",)))
    bench.works["push"] = False
    bench.tell(1)
    bench.pass_time(5 * MINUTE_S)
    now_ms = bench.clock.now_ms()
    bench.database.write_here(lambda tx: notices.withdraw(tx, ["alarm-1"], "acknowledged", now_ms, urgent=False))
    bench.pass_time(10 * MINUTE_S)
    bench.works["push"] = True
    bench.pass_time(15 * MINUTE_S)
    assert bench.got == []


def test_repeats_for_one_receiver_take_no_room_from_others(bench):
    """A hundred calls while ann's pushes fail: bob's come with the next free places, not after all of hers."""
    bench = bench(("ann", ("push",)), ("bob", ("push",)))
    bench.works["push"] = lambda leased: leased.recipient.person_id == "bob"
    dispatch, calls, room = Dispatch(EVERY_CHANNEL), 100, 10
    bench.database.write_here(lambda tx: on_shift(tx, "on_call", "ann", "bob"))
    changes = decided(*(press(number) for number in range(1, calls + 1)))
    bench.database.write_here(lambda tx: dispatch.plan(tx, changes, NOW))
    for _ in range(2 * calls // room):
        bench.deliver(EMERGENCIES, EMERGENCY, room)
        bench.clock.advance(seconds=3)  # every repeat is due again
    assert len(bench.got) == calls


def test_calls_of_the_deployment_to_itself_are_in_no_log_and_no_figure(bench):
    bench = bench(("ann", ("push",)))
    bench.workers._channels[PROBE_CHANNEL] = Receiver(PROBE_CHANNEL)
    bench.works = {PROBE_CHANNEL: True, "push": True}

    def observed():
        return {one.name: one.value for one in next(iter(NOTIFY_SECONDS.collect())).samples}[
            "fleet_press_to_notified_seconds_count"
        ]

    def put(channel, stage):
        notification = Notification("synthetic", "c", "emergency", "room", "呼叫", "Call", {}, NOW)
        row = {
            "delivery_id": f"{channel}{stage}", "channel": channel, "reference": "c", "stage": stage,
            "urgent": EMERGENCY, "notification": notices.encode(notification), "created_at": NOW, "available_at": NOW,
        }  # fmt: skip
        bench.database.write_here(lambda tx: tx.execute(insert(outbox).values(**row)))
        bench.deliver(EMERGENCIES, EMERGENCY)
        return observed(), bench.database.read_here(lambda tx: tx.scalar(select(func.count(delivery_attempt.c.id))))

    before = observed()
    assert put(PROBE_CHANNEL, 0) == (before, 0)
    assert put("push", 1) == (before, 1), "what was to wait for an earlier channel is no slow notification"
    assert put("push", 0) == (before + 1, 2)
    assert {row["delivered_at"] for row in bench.database.read_here(lambda tx: rows(tx, outbox))} == {NOW}


def test_a_watchdog_that_is_away_pages_nobody_and_leaves_nothing_behind(bench):
    bench = bench(("ann", ("push",)))
    bench.workers._names = (*bench.workers._names, PROBE_CHANNEL)
    bench.works = {PROBE_CHANNEL: False}
    notification = Notification("synthetic", "c", "emergency", "room", "呼叫", "Call", {}, NOW)
    row = notices.outbox_rows(notification, "press", [PROBE_CHANNEL], urgent=EMERGENCY, available_at=NOW)
    bench.database.write_here(lambda tx: notices.put(tx, row))
    for _ in range(10):
        bench.deliver(EMERGENCIES, EMERGENCY)
        bench.clock.advance(seconds=3)
    (left,) = bench.database.read_here(lambda tx: rows(tx, outbox))
    assert (left["channel"], left["attempts"], left["delivered_at"]) == (PROBE_CHANNEL, 10, None)
    later = NOW + round(1000 * KEPT_S) + 1
    assert bench.database.write_here(lambda tx: prune(tx, later)) == 1
    assert bench.database.read_here(lambda tx: rows(tx, outbox)) == []


def test_a_dead_channel_is_not_told_to_the_watchdog(bench):
    bench = bench(("ann", ("push",)))
    bench.workers._names = (*bench.workers._names, "inbox", PROBE_CHANNEL)
    bench.works["push"] = False
    bench.database.write_here(lambda tx: on_shift(tx, "on_call", "ann"))
    bench.database.write_here(lambda tx: Dispatch(EVERY_CHANNEL).plan(tx, decided(press()), NOW))
    for _ in range(4):
        bench.deliver(EMERGENCIES, EMERGENCY)
        bench.clock.advance(seconds=3)
    told = [row["channel"] for row in bench.database.read_here(lambda tx: rows(tx, outbox))
            if row["reference"] == "channel:push"]  # fmt: skip
    assert told == ["inbox"]


def test_a_code_that_was_sent_stands_in_nothing_that_is_kept(bench):
    bench = bench(("ann", ("push",)))
    titles = "您的验证码：123456", "Your code: 123456"
    said = Notification("contact", "ann-push-1", "low", "", *titles, {"code": "123456"}, NOW)
    row = {
        "delivery_id": "d", "channel": "push", "reference": "ann-push-1", "recipient": "ann",
        "contact_id": "ann-push-1",
        "notification": notices.encode(said), "urgent": ORDINARY, "created_at": NOW, "available_at": NOW,
    }  # fmt: skip
    bench.database.write_here(lambda tx: tx.execute(insert(outbox).values(**row)))
    bench.works["push"] = False
    bench.deliver()
    bench.works["push"] = True
    bench.clock.advance(seconds=5)
    bench.deliver()
    assert [one.facts for _, _, one in bench.got] == [{"code": "123456"}], "also after a failed attempt"
    (kept,) = bench.database.read_here(lambda tx: rows(tx, outbox))
    assert kept["delivered_at"] is not None
    assert "123456" not in kept["notification"]
    assert decode(kept["notification"]).title_en == "Verification code"
