"""The outbox's workers against real databases: nothing is lost, doubled by us, or held up by a neighbour."""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from cloud.dispatch import leases, notices
from cloud.dispatch.outbox import ALL_ELSE, EMERGENCIES, Outbox
from cloud.dispatch.planner import Dispatch
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from fleet.clock import ManualClock
from tests.unit.dispatch_cases import NOW, SOON_S, Watched, acknowledge, alarm_change, decided, press, stored

pytest_plugins = ("tests.adapters.postgres_fixture",)

REAL_NOW = 1_700_000_000_000


class Receiver:
    """A channel that keeps what it got. `answers`: what the next attempts do; then they succeed."""

    def __init__(self, name="webhook", *answers):
        self.name = name
        self.answers = list(answers)
        self.got: list[tuple[str, str]] = []
        self.attempts: list[str] = []
        self.changed = asyncio.Condition()
        self.opened = asyncio.Event()
        self.opened.set()

    async def send(self, notification: Notification, *, delivery_id: str) -> None:
        async with self.changed:
            self.attempts.append(delivery_id)
            self.changed.notify_all()
        await self.opened.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        async with self.changed:
            self.got.append((notification.reference, delivery_id))
            self.changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(SOON_S), self.changed:
            await self.changed.wait_for(condition)


@pytest.fixture
def watched(database):
    return Watched(database)


@asynccontextmanager
async def running(database, clock, *channels, owner="one", **options):
    options = {"poll_s": 0.02, "real_now_ms": lambda: REAL_NOW, **options}
    workers = Outbox(database, clock, channels, randomness=random.Random(1), owner=owner, **options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(workers.run())
        try:
            yield workers
        finally:
            task.cancel()


def plan(database, *changes, channels=("inbox", "webhook"), now=NOW):
    return database.write_here(lambda tx: Dispatch(channels).plan(tx, decided(*changes), now))


async def test_a_press_is_delivered_once_on_every_channel(watched):
    inbox, webhook = Receiver("inbox"), Receiver()
    plan(watched, press())
    async with running(watched, ManualClock(NOW), inbox, webhook):
        await webhook.until(lambda: webhook.got)
        await inbox.until(lambda: inbox.got)
        (row,) = await watched.until(lambda found: found[0]["delivered_at"])
    assert (row["attempts"], row["delivered_at"], row["lease_token"]) == (1, NOW, None)
    assert webhook.got == [("call-1", row["delivery_id"])]
    assert webhook.got[0][1] != inbox.got[0][1]


async def test_what_is_put_later_is_delivered_after_a_wake_without_any_poll(watched):
    webhook = Receiver()
    async with running(watched, ManualClock(NOW), webhook, poll_s=3600) as workers:
        for number in range(1, 4):
            await watched.write(lambda tx, number=number: Dispatch(("webhook",)).plan(tx, decided(press(number)), NOW))
            workers.wake()
            await webhook.until(lambda number=number: len(webhook.got) == number)


async def test_a_refused_delivery_is_tried_again_under_the_same_id(watched):
    webhook = Receiver("webhook", NotDeliveredError("HTTP 500"), RuntimeError("a defect"))
    clock = ManualClock(NOW)
    plan(watched, press())
    async with running(watched, clock, webhook):
        for attempt in (1, 2):
            (row,) = await watched.until(
                lambda found, n=attempt: (
                    found[0]["last_error"] and found[0]["attempts"] == n and not found[0]["lease_token"]
                ),
            )
            assert 0 < row["available_at"] - clock.now_ms() <= 2000
            clock.advance(seconds=2)
        await webhook.until(lambda: webhook.got)
        (row,) = await watched.until(lambda found: found[0]["delivered_at"])
    assert len(webhook.attempts) == 3
    assert len(set(webhook.attempts)) == 1
    assert row["last_error"] is None


async def test_a_killed_worker_s_delivery_is_repeated_under_the_same_id_when_its_lease_runs_out(watched):
    plan(watched, press())
    real = [REAL_NOW]
    hung = Receiver()
    hung.opened.clear()
    async with running(watched, ManualClock(NOW), hung, owner="killed"):
        await hung.until(lambda: hung.attempts)
    (left,) = stored(watched)
    assert left["lease_token"] is not None
    healthy = Receiver()
    async with running(watched, ManualClock(NOW), healthy, owner="two", real_now_ms=lambda: real[0]):
        await watched.several_polls()  # several polls: the lease still holds
        assert healthy.attempts == []
        real[0] += round(EMERGENCIES.lease_s * 1000) + 1
        await healthy.until(lambda: healthy.got)
    assert healthy.got == [("call-1", hung.attempts[0])]


async def test_the_sole_owner_of_a_database_does_not_wait_for_its_predecessor_s_leases(watched):
    plan(watched, press())
    hung, healthy = Receiver(), Receiver()
    hung.opened.clear()
    async with running(watched, ManualClock(NOW), hung, owner="killed"):
        await hung.until(lambda: hung.attempts)
    async with running(watched, ManualClock(NOW), healthy, owner="two", sole_owner=True):
        await healthy.until(lambda: healthy.got)
    assert healthy.got[0][1] == hung.attempts[0]


def moment(real_ms=REAL_NOW, now_ms=NOW):
    return leases.Moment(now_ms=now_ms, real_ms=real_ms, delay_ms_max=600_000, lease_ms_max=8_000)


def take(database, token, at=None, until_ms=REAL_NOW + 8_000, room=10):
    return database.write_here(
        lambda tx: leases.lease(tx, at or moment(), urgent=True, room={"webhook": room}, token=token, until_ms=until_ms)
    )


def test_who_lost_the_lease_can_change_nothing(database):
    plan(database, press())
    (old,) = take(database, "old")
    assert take(database, "early") == []
    (new,) = take(database, "new", moment(REAL_NOW + 8_000), REAL_NOW + 16_000)
    assert (new.delivery_id, new.attempt) == (old.delivery_id, 2)
    finished = [leases.Outcome(old, NOW), leases.Outcome(old, NOW, "late", NOW + 5), leases.Outcome(old, NOW, "gone")]
    assert database.write_here(lambda tx: leases.finish(tx, finished)) == 3
    (row,) = stored(database)
    assert (row["lease_token"], row["delivered_at"], row["given_up_at"], row["last_error"]) == ("new", None, None, None)
    assert database.write_here(lambda tx: leases.finish(tx, [leases.Outcome(new, NOW)])) == 0
    assert stored(database)[0]["delivered_at"] == NOW


def test_clocks_set_back_by_years_hold_nothing_up(database):
    plan(database, press())
    years = 10 * 365 * 86_400_000
    assert len(take(database, "a", moment(REAL_NOW, NOW - years))) == 1
    assert len(take(database, "b", moment(REAL_NOW - years, NOW))) == 1


def test_a_lease_takes_no_more_than_there_is_room_for(database):
    plan(database, *(press(number) for number in range(1, 8)))
    assert [len(take(database, f"t{step}", room=3)) for step in range(4)] == [3, 3, 1, 0]


async def test_a_hanging_channel_delays_no_other_and_its_time_out_is_a_failure(watched):
    hanging, healthy = Receiver("group-bot"), Receiver()
    hanging.opened.clear()
    plan(watched, *(press(number) for number in range(1, 101)), channels=("webhook", "group-bot"))
    quick = replace(EMERGENCIES, timeout_s=0.2, in_hand_max=4)
    async with running(watched, ManualClock(NOW), hanging, healthy, emergencies=quick):
        await healthy.until(lambda: len(healthy.got) == 100)
        assert len(hanging.attempts) < 100
        found = await watched.until(lambda found: any(row["last_error"] for row in found), "group-bot")
    assert {row["last_error"] for row in found} - {None} == {"no answer within 0.2 s"}
    assert REGISTRY.get_sample_value("fleet_outbox_saturated_total", {"channel": "group-bot"}) > 0


async def test_nothing_queues_before_an_emergency(watched):
    webhook = Receiver()
    plan(watched, *(alarm_change(number) for number in range(3)), now=NOW - 60_000)
    webhook.opened.clear()
    async with running(watched, ManualClock(NOW), webhook, all_else=replace(ALL_ELSE, in_hand_max=1)) as workers:
        await webhook.until(lambda: len(webhook.attempts) == 1)  # all else is stuck behind one
        await watched.write(lambda tx: Dispatch(("webhook",)).plan(tx, decided(press()), NOW))
        workers.wake()
        await webhook.until(lambda: len(webhook.attempts) == 2)
        urgent = [row["delivery_id"] for row in stored(watched) if row["urgent"]]
        assert webhook.attempts[1:] == urgent


async def test_no_page_after_acknowledgement_not_even_a_retry_of_one_in_hand(watched):
    webhook = Receiver("webhook", NotDeliveredError("HTTP 502"))
    webhook.opened.clear()
    clock = ManualClock(NOW)
    plan(watched, press())
    async with running(watched, clock, webhook) as workers:
        await webhook.until(lambda: webhook.attempts)
        later = [acknowledge(at=NOW + 10)]
        await watched.write(lambda tx: Dispatch(("webhook",)).plan(tx, decided(*later), NOW + 10))
        webhook.opened.set()
        clock.advance(seconds=5)
        workers.wake()
        await webhook.until(lambda: webhook.got)
        page = webhook.attempts[0]
        clock.advance(seconds=60)
        workers.wake()
        found = await watched.until(lambda found: all(row["delivered_at"] or row["given_up_at"] for row in found))
    assert webhook.attempts.count(page) == 1
    withdrawn = next(row for row in found if row["delivery_id"] == page)
    assert (withdrawn["delivered_at"], withdrawn["last_error"]) == (None, "withdrawn: acknowledged")
    assert watched.read_here(leases.counts)["withdrawn"] == 2  # this page, and the inbox's, which nobody served


async def test_a_dead_channel_is_given_up_and_announced_on_the_others(watched):
    dead = Receiver("group-bot", *[NotDeliveredError("HTTP 410")] * 10)
    inbox = Receiver("inbox")
    clock = ManualClock(NOW)
    plan(watched, press(), press(2), channels=("group-bot",))
    given_up = {"channel": "group-bot"}
    before = REGISTRY.get_sample_value("fleet_outbox_given_up_total", given_up) or 0
    async with running(watched, clock, dead, inbox, emergencies=replace(EMERGENCIES, attempts_max=2)) as workers:
        await watched.until(
            lambda found: all(row["last_error"] and not row["lease_token"] for row in found), "group-bot"
        )
        clock.advance(seconds=3)
        workers.wake()
        await inbox.until(lambda: len(inbox.got) == 3)
        found = await watched.until(lambda found: all(row["given_up_at"] for row in found), "group-bot")
    assert {row["last_error"] for row in found} == {"HTTP 410"}
    assert [reference for reference, _ in inbox.got].count("channel:group-bot") == 1
    assert REGISTRY.get_sample_value("fleet_outbox_given_up_total", given_up) == before + 2


def told(receiver, channel="group-bot"):
    """Different notices about the channel: a worker that is stopped may leave one to be repeated."""
    return len({delivery for reference, delivery in receiver.got if reference == f"channel:{channel}"})


async def fail(watched, clock, workers, *attempts):
    """Until these attempts of the channel's first row have failed, business time moving on as it has to."""
    for attempt in attempts:
        await watched.until(
            lambda found, n=attempt: (
                found[0]["attempts"] == n and found[0]["last_error"] and not found[0]["lease_token"]
            ),
            "group-bot",
        )
        clock.advance(seconds=2)
        workers.wake()


async def test_an_outage_is_announced_after_three_attempts_of_an_emergency_once_and_so_is_its_end(watched):
    refusals = [NotDeliveredError("HTTP 503")] * 6
    chat, inbox = Receiver("group-bot", *refusals), Receiver("inbox")
    clock = ManualClock(NOW)
    plan(watched, press(), channels=("group-bot",))
    async with running(watched, clock, chat, inbox) as workers:
        await fail(watched, clock, workers, 1, 2)
        await inbox.until(lambda: len(inbox.got) == 1)  # the press itself
        assert told(inbox) == 0
        await fail(watched, clock, workers, 3, 4, 5, 6)
        await inbox.until(lambda: told(inbox) == 2)
        await chat.until(lambda: told(chat) == 1)
        found = await watched.until(lambda found: all(row["delivered_at"] for row in found), "inbox")
    about = [notices.decode(row["notification"]) for row in found if row["reference"] == "channel:group-bot"]
    assert [(one.facts["delivers"], one.facts.get("error")) for one in about] == [(False, "HTTP 503"), (True, None)]
    assert [row["urgent"] for row in found if row["reference"] == "channel:group-bot"] == [1, 0]


async def test_an_emergency_that_waited_ten_seconds_is_an_outage_at_its_first_failure(watched):
    chat, inbox = Receiver("group-bot", NotDeliveredError("no route")), Receiver("inbox")
    clock = ManualClock(NOW)
    plan(watched, press(), channels=("group-bot",))
    clock.advance(seconds=10)
    async with running(watched, clock, chat, inbox):
        await inbox.until(lambda: told(inbox) == 1)


async def test_an_outage_that_was_announced_is_not_announced_again_after_a_restart_and_a_second_one_is(watched):
    chat, inbox = Receiver("group-bot", *[NotDeliveredError("HTTP 503")] * 1000), Receiver("inbox")
    clock = ManualClock(NOW)
    plan(watched, press(), channels=("group-bot",))
    clock.advance(seconds=10)
    async with running(watched, clock, chat, inbox, owner="one"):
        await inbox.until(lambda: told(inbox) == 1)
    async with running(watched, clock, chat, inbox, owner="two", sole_owner=True) as workers:
        failed = len(chat.attempts)
        while len(chat.attempts) < failed + 3:
            seen = len(chat.attempts)
            clock.advance(seconds=2)
            workers.wake()
            await chat.until(lambda n=seen: len(chat.attempts) > n)
        assert told(inbox) == 1
        chat.answers.clear()
        clock.advance(seconds=2)
        workers.wake()
        await inbox.until(lambda: told(inbox) == 2)
        chat.answers.extend([NotDeliveredError("again")] * 1000)
        plan(watched, press(2, at=NOW), channels=("group-bot",), now=clock.now_ms() - 10_000)
        workers.wake()
        await inbox.until(lambda: told(inbox) == 3)


async def test_a_notice_that_is_held_back_leaves_when_its_window_closes(watched):
    webhook = Receiver()
    clock = ManualClock(NOW)
    plan(watched, alarm_change())
    async with running(watched, clock, webhook) as workers:
        await watched.several_polls()
        assert webhook.attempts == []
        clock.advance(seconds=10)
        workers.wake()
        await webhook.until(lambda: webhook.got)


async def test_two_workers_on_one_database_deliver_each_row_once(watched):
    plan(watched, *(press(number) for number in range(1, 61)))
    one, two = Receiver(), Receiver()
    small = replace(EMERGENCIES, in_hand_max=3)
    async with (
        running(watched, ManualClock(NOW), one, owner="one", emergencies=small),
        running(watched, ManualClock(NOW), two, owner="two", emergencies=small),
    ):
        await watched.until(lambda found: all(row["delivered_at"] for row in found))
    assert sorted(reference for reference, _ in one.got + two.got) == sorted(f"call-{n}" for n in range(1, 61))


async def test_presses_and_acknowledgements_meet_workers_without_a_deadlock(watched):
    one, two = Receiver(), Receiver("inbox")
    dispatch = Dispatch(("webhook",))

    async def call(number):
        await watched.write(lambda tx: dispatch.plan(tx, decided(press(number)), NOW))
        await watched.write(lambda tx: dispatch.plan(tx, decided(acknowledge(at=NOW + 1, number=number)), NOW))

    async with (
        running(watched, ManualClock(NOW), one, two, owner="one", poll_s=0.001),
        running(watched, ManualClock(NOW), one, two, owner="two", poll_s=0.001),
    ):
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, 41):
                tasks.create_task(call(number))
        await watched.until(lambda rows: all(row["delivered_at"] or row["given_up_at"] for row in rows))
    infos = [reference for reference, _ in one.got if reference.startswith("call")]
    assert {infos.count(f"call-{number}") for number in range(1, 41)} <= {1, 2}


def test_the_waits_between_attempts_grow_to_their_bound():
    class Longest:
        def uniform(self, _low, high):
            return high

    waits = [EMERGENCIES.backoff_s(attempt, Longest()) for attempt in range(1, 8)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert ALL_ELSE.backoff_s(10_000, Longest()) == ALL_ELSE.backoff_s_max


def test_a_notification_survives_its_row():
    notification = Notification("call", "c", "emergency", "room-001", "呼叫", "Call", {"list": [1, {"a": None}]}, NOW)
    assert notices.decode(notices.encode(notification)) == notification


async def test_a_database_that_fails_ends_the_workers():
    async def broken(_work):
        raise OSError("disk gone")

    class Broken:
        read = write = staticmethod(broken)

    workers = Outbox(
        Broken(), ManualClock(NOW), [Receiver()], real_now_ms=lambda: REAL_NOW, randomness=random.Random(1), owner="one"
    )
    with pytest.raises(ExceptionGroup) as failure:
        await workers.run()
    assert failure.group_contains(OSError, match="disk gone")
