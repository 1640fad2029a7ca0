"""The SQL tables become steps in the series: each once, whatever ends, fails or is deleted meanwhile."""

import pytest
from history_cases import (
    MINUTE_MS,
    NOW_MS,
    Follower,
    FreeLease,
    MemoryStore,
    add_alarm,
    add_alarm_step,
    add_call,
    add_call_step,
    add_command,
    add_order,
    add_order_step,
    add_purchase,
    add_purchase_step,
    add_ride,
    move_command,
    move_ride,
)
from sqlalchemy import delete, func, insert, select, update

from cloud.history import bounds
from cloud.history.feed import FIRST_DAYS
from cloud.history.samples import SAMPLERS
from cloud.history.steps import encode_points, point
from cloud.ingest.leases import LeaseLostError, Leases
from cloud.supervision import upkeep
from cloud.tables import call, command_step, history_mark, history_sample, purchase, ride_step
from fleet import milestones, series
from fleet.topics import SHARD_COUNT

pytest_plugins = ("tests.adapters.postgres_fixture",)

DAY_MS = 86_400_000


class CrashError(BaseException):
    """The process ends here."""


def crash_at(name, passage=1):
    left = passage

    def observer(reached):
        nonlocal left
        left -= reached == name
        if reached == name and not left:
            raise CrashError

    return observer


async def test_a_call_is_its_steps_with_the_time_since_the_press(database):
    def happen(tx):
        add_call(tx, "c1")
        add_call_step(tx, "c1", "escalate", "calling", "calling", NOW_MS + 30_000, "escalation:1")
        add_call_step(tx, "c1", "acknowledge", "calling", "acknowledged", NOW_MS + 42_000)
        add_call_step(tx, "c1", "clear_at_origin", "acknowledged", "cleared", NOW_MS + 99_000)

    await database.write(happen)
    it = Follower(database)
    await it.follow()
    tags = {"device_id": "room-001", "purpose": "help"}
    assert it.store.of("call_step") == [
        ({**tags, "step": step}, NOW_MS + ms, {"call_id": "c1", "state": state, "since_press_ms": ms, "escalation": n})
        for step, state, ms, n in (
            ("press", "calling", 0, 0),
            ("escalate", "calling", 30_000, 1),
            ("acknowledge", "acknowledged", 42_000, 1),
            ("clear_at_origin", "cleared", 99_000, 1),
        )
    ]


async def test_calls_of_the_deployment_itself_are_no_calls(database):
    def happen(tx):
        add_call(tx, "mine", purpose="synthetic", device_id="synthetic-room")
        add_call(tx, "tried", purpose="test")
        add_call(tx, "also-mine", purpose="synthetic", device_id="room-009")

    await database.write(happen)
    it = Follower(database)
    await it.follow()
    assert [(tags["purpose"], fields["call_id"]) for tags, _, fields in it.store.of("call_step")] == [("test", "tried")]


async def test_an_alarm_says_how_long_it_was_true_and_whether_people_saw_it(database):
    def happen(tx):
        add_alarm(tx, "a1")
        add_alarm_step(tx, "a1", "shelve", "shown", "shelved", NOW_MS + 1_000)
        add_alarm_step(tx, "a1", "return", "unacknowledged", "returned_unacknowledged", NOW_MS + 5_000)
        add_alarm_step(tx, "a1", "activate", "returned_unacknowledged", "unacknowledged", NOW_MS + 60_000)
        add_alarm_step(tx, "a1", "return_latched", "unacknowledged", "latched_unacknowledged", NOW_MS + 61_500)

    await database.write(happen)
    it = Follower(database)
    await it.follow()
    found = it.store.of("alarm_step")
    assert [(tags["step"], fields.get("active_ms")) for tags, _, fields in found] == [
        ("activate", None), ("shelve", None), ("return", 5_000), ("activate", None), ("return_latched", 1_500),
    ]  # fmt: skip
    assert found[0][0] == {
        "device_id": "machine-001", "kind": "meal_machine", "key": "too_warm", "priority": "high", "step": "activate",
    }  # fmt: skip
    assert found[1][2] == {"alarm_id": "a1", "state": "unacknowledged", "view": "shelved"}


async def test_an_order_says_why_it_stopped_and_whether_it_was_late(database):
    def happen(tx):
        add_order(tx, "o1")
        add_order_step(tx, "o1", "hold", "dispatchable", "on_hold", NOW_MS + 10_000, "waiting_part")
        add_order_step(tx, "o1", "complete", "in_progress", "done", NOW_MS + 2 * MINUTE_MS)

    await database.write(happen)
    it = Follower(database)
    await it.follow()
    fields = [fields for _, _, fields in it.store.of("order_step")]
    assert fields == [
        {"order_id": "o1", "priority": "medium", "state": "dispatchable", "since_made_ms": 0, "reason": ""},
        {"order_id": "o1", "priority": "medium", "state": "on_hold", "since_made_ms": 10_000, "reason": "waiting_part"},
        {"order_id": "o1", "priority": "medium", "state": "done", "since_made_ms": 120_000, "reason": "", "late": True},
    ]


async def test_a_ride_and_a_command_are_their_steps_although_each_is_one_row(database):
    await database.write(lambda tx: (add_ride(tx, "r1"), add_command(tx, "c1")))
    await database.write(lambda tx: move_command(tx, "c1", "sent", NOW_MS + 20))
    opened = {"state": "riding", "started_at": NOW_MS + 1_500, "changed_at": NOW_MS + 2_000}
    await database.write(lambda tx: (move_ride(tx, "r1", **opened), move_command(tx, "c1", "succeeded", NOW_MS + 1600)))
    await database.write(lambda tx: move_ride(tx, "r1", changed_at=NOW_MS + 3_000))  # nothing moved
    ended = {"state": "ended", "ended_at": NOW_MS + 61_500, "fee_fen": 100, "changed_at": NOW_MS + 62_000}

    def end(tx):
        move_ride(tx, "r1", **ended)
        move_ride(tx, "r1", flagged="unpaid", changed_at=NOW_MS + 62_000)

    await database.write(end)
    it = Follower(database)
    await it.follow()
    found = it.store.of("ride_step")
    assert [(tags["step"], at_ms - NOW_MS) for tags, at_ms, _ in found] == [
        ("asked", 0), ("opened", 1_500), ("closed", 61_500), ("flagged", 62_000),
    ]  # fmt: skip
    assert found[2][2] == {
        "ride_id": "r1", "state": "ended", "reason": "", "flagged": "", "since_asked_ms": 61_500,
        "duration_ms": 60_000, "fee_fen": 100,
    }  # fmt: skip
    assert found[3][2]["flagged"] == "unpaid"
    commands = it.store.of("command_step")
    assert [(tags["action"], tags["step"], fields["duration_ms"]) for tags, _, fields in commands] == [
        ("unlock", "queued", 0), ("unlock", "sent", 20), ("unlock", "succeeded", 1_600),
    ]  # fmt: skip


async def test_how_a_ride_ended_is_read_from_its_reason(database):
    ends = {
        "r1": ("ended", "bike_revoked", "revoked"), "r2": ("ended", "jam", "jammed"),
        "r3": ("never_began", "busy", "failed"), "r4": ("never_began", "expired", "expired"),
        "r5": ("never_began", "jam", "jammed"),
    }  # fmt: skip
    for ride_id, (state, reason, _) in ends.items():
        await database.write(lambda tx, ride_id=ride_id: add_ride(tx, ride_id))
        values = {"state": state, "reason": reason, "changed_at": NOW_MS + 9_000}
        await database.write(lambda tx, ride_id=ride_id, values=values: move_ride(tx, ride_id, **values))
    it = Follower(database)
    await it.follow()
    found = {fields["ride_id"]: tags["step"] for tags, _, fields in it.store.of("ride_step") if tags["step"] != "asked"}
    assert found == {ride_id: step for ride_id, (_, _, step) in ends.items()}


async def test_a_purchase_says_what_went_wrong_only_where_it_did_and_no_reason_grows_the_tag(database):
    def happen(tx):
        add_purchase(tx, "p1")
        add_purchase_step(tx, "p1", "pay", "payment_pending", "paid", NOW_MS + 1_000, paid_at=NOW_MS + 1_000)
        add_purchase_step(tx, "p1", "fail", "paid", "dispense_failed", NOW_MS + 9_000, reason="jam")
        add_purchase_step(tx, "p1", "refund", "refund_pending", "refunded", NOW_MS + 9_000)
        add_purchase(tx, "p2", at=NOW_MS + 20_000)
        add_purchase_step(tx, "p2", "cancel", "payment_pending", "cancelled", NOW_MS + 21_000, reason="words of 2031")

    await database.write(happen)
    it = Follower(database)
    await it.follow()
    found = it.store.of("purchase_step")
    assert [(tags["step"], tags.get("reason")) for tags, _, _ in found] == [
        ("ask_payment", None), ("pay", None), ("fail", "jam"), ("refund", "jam"), ("ask_payment", None),
        ("cancel", "other"),
    ]  # fmt: skip
    assert found[3][2] == {
        "purchase_id": "p1", "state": "refunded", "meal": "braised_pork", "fen": 1850, "refunded_fen": 1850,
        "since_asked_ms": 9_000, "since_paid_ms": 8_000,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["history.after_mark", "history.after_series_write"])
@pytest.mark.parametrize("passage", [1, 3])
async def test_a_killed_feed_goes_on_and_doubles_nothing_even_if_the_rows_changed_meanwhile(database, name, passage):
    await database.write(lambda tx: [add_call(tx, f"c{n}", purpose="test", at=NOW_MS + n) for n in range(10)])
    it = Follower(database, batch_rows=4)
    with milestones.observed(crash_at(name, passage)), pytest.raises(CrashError):
        await it.follow()
    await database.write(lambda tx: tx.execute(update(call).values(purpose="help")))  # a tag, had they been read again
    again = it.restarted()
    await again.follow()
    assert again.feed.statistics.repeated == 1
    assert sorted(fields["call_id"] for _, _, fields in it.store.of("call_step")) == sorted(f"c{n}" for n in range(10))
    kept = await database.read(lambda tx: tx.scalar(select(func.count(history_mark.c.pending))))
    assert kept == 0


async def test_an_outage_of_the_series_is_waited_for_and_loses_nothing(database):
    await database.write(lambda tx: [add_call(tx, f"c{n}") for n in range(5)])
    it = Follower(database)
    it.store.down = 4
    lags = []
    sleep = it.sending._sleep

    async def passing(seconds):
        await sleep(seconds)
        it.clock.ms += 60_000
        lags.append(it.feed.lag_ms)

    it.sending._sleep = passing
    await it.follow()
    assert len(it.store.of("call_step")) == 5
    assert it.waited_s == [1.0] * 4
    assert lags == [60_000, 120_000, 180_000, 240_000]
    assert it.feed.lag_ms == 0
    assert it.sending.statistics.retries == 4


async def test_what_the_series_never_takes_is_set_aside_and_the_rest_written(database):
    await database.write(lambda tx: [add_call(tx, f"c{n}") for n in range(9)])
    it = Follower(database)
    it.store.refuses = lambda one: one.fields.get("call_id") == "c4"
    await it.follow()
    assert len(it.store.of("call_step")) == 8
    assert [(item.device_id, item.reason) for item in it.quarantined] == [
        ("room-001", "series: 400: field type conflict")
    ]


async def test_a_series_that_refuses_everything_is_an_outage(database):
    await database.write(lambda tx: add_call(tx, "c1"))
    it = Follower(database)
    refusals = 6

    def refuses(_point):
        nonlocal refusals
        refusals -= 1
        return refusals > 0

    it.store.refuses = refuses
    await it.follow()
    assert it.quarantined == []
    assert it.store.steps("call_step") == ["press"]


async def test_the_feed_is_one_and_who_lost_the_lease_moves_no_mark(database):
    def now_ms():
        return NOW_MS

    mine = Leases(database, "history:a", now_ms)
    await mine.take([SHARD_COUNT])
    await database.write(lambda tx: add_call(tx, "c1"))
    it = Follower(database, lease=mine)
    await it.follow()
    await Leases(database, "history:a", now_ms).take([SHARD_COUNT])  # the same owner, started again
    await database.write(lambda tx: add_call(tx, "c2"))
    with pytest.raises(LeaseLostError):
        await it.follow()
    assert it.store.steps("call_step") == ["press"]


async def test_ids_that_come_again_after_rows_were_deleted_are_followed(database):
    """SQLite gives a deleted last row's id to the next one."""
    hour_ms = 3_600_000

    def synthetic(tx):
        for number in range(4):
            add_call(tx, f"s{number}", purpose="synthetic", device_id="synthetic-room")
        tx.execute(update(call).values(state="calling"))

    await database.write(synthetic)
    it = Follower(database)
    await it.follow()
    await database.write(
        lambda tx: [add_call_step(tx, f"s{n}", "clear_at_origin", "calling", "cleared", NOW_MS, "e") for n in range(4)]
    )
    await it.follow()
    await database.write(lambda tx: tx.execute(update(call).values(state="cleared")))
    assert await database.write(lambda tx: upkeep.prune(tx, NOW_MS + 2 * hour_ms)) == 12
    await database.write(lambda tx: [add_call(tx, f"c{n}", at=NOW_MS + 2 * hour_ms) for n in range(9)])
    await it.follow()
    assert len(it.store.of("call_step")) == 9


async def test_samples_wait_in_sql_and_leave_it_when_they_are_in_the_series(database):
    fields = {"devices": 3, "online": 2}
    points = [point(series.FLEET_STATE, 0, NOW_MS, {"kind": "bike"}, fields)]
    for _ in range(2):  # the same sample twice is one point
        row = {"at": NOW_MS, "points": encode_points(points)}
        await database.write(lambda tx, row=row: tx.execute(insert(history_sample).values(**row)))
    it = Follower(database)
    it.store.down = 3
    await it.follow()
    assert it.store.of("fleet_state") == [({"device_id": "", "kind": "bike"}, NOW_MS, fields)]
    assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(history_sample))) == 0
    await database.write(lambda tx: tx.execute(insert(history_sample).values(at=NOW_MS, points=encode_points(points))))
    await it.follow()
    assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(history_sample))) == 0


async def test_a_table_that_was_never_followed_begins_where_the_raw_series_does(database):
    old_ms = NOW_MS - (FIRST_DAYS + 5) * DAY_MS
    await database.write(lambda tx: [add_call(tx, f"old{n}", at=old_ms) for n in range(3)])
    await database.write(lambda tx: add_call(tx, "young", at=NOW_MS - DAY_MS))
    it = Follower(database)
    await it.follow()
    assert [fields["call_id"] for _, _, fields in it.store.of("call_step")] == ["young"]


async def test_the_lag_is_the_age_of_what_waits(database):
    it = Follower(database)
    await it.follow()
    assert it.feed.lag_ms == 0
    await database.write(lambda tx: [add_call(tx, f"c{n}", at=NOW_MS + n) for n in range(6)])
    it.clock.ms = NOW_MS + 70_000
    it.feed.batch_rows = 2
    await it.step()
    assert it.feed.lag_ms == 70_000 - 2
    await it.follow()
    assert it.feed.lag_ms == 0


async def test_steps_of_rides_and_commands_go_when_they_are_followed_and_old(database):
    await database.write(lambda tx: (add_ride(tx, "r1"), add_command(tx, "c1")))
    clock = Follower(database).clock
    clock.ms = NOW_MS + 40 * DAY_MS

    async def left():
        def count(tx):
            return [tx.scalar(select(func.count()).select_from(log)) for log in (ride_step, command_step)]

        return await database.read(count)

    await bounds.prune(database, clock, 400, 30)
    assert await left() == [1, 1]  # nobody followed them yet
    clock.ms = NOW_MS
    await Follower(database, clock=clock).follow()
    clock.ms = NOW_MS + 40 * DAY_MS
    await bounds.prune(database, clock, 400, 30)
    assert await left() == [0, 0]


async def test_a_purchase_that_is_gone_takes_nothing_with_it(database):
    await database.write(lambda tx: (add_purchase(tx, "p1"), add_purchase(tx, "p2", at=NOW_MS + 1)))
    await database.write(lambda tx: tx.execute(delete(purchase).where(purchase.c.id == "p1")))
    it = Follower(database)
    await it.follow()
    assert [fields["purchase_id"] for _, _, fields in it.store.of("purchase_step")] == ["p2"]


async def test_every_tag_and_field_of_a_step_is_in_the_vocabulary(database):
    """`point` refuses unknown fields; closed tags hold only what their list has."""

    def happen(tx):
        add_call(tx, "c1")
        add_alarm(tx, "a1")
        add_order(tx, "o1")
        add_ride(tx, "r1")
        add_purchase(tx, "p1")
        add_command(tx, "c1")

    await database.write(happen)
    it = Follower(database, store=MemoryStore(), lease=FreeLease())
    await it.follow()
    of_tables = {one.name for one in series.MEASUREMENTS if one.is_step and one.name not in SAMPLERS}
    assert {key[0] for key in it.store.points} == of_tables
    for kind, device_id, tags, _ in it.store.points:
        measurement = series.measurement_named(kind)
        assert device_id
        for name, value in tags:
            assert name in measurement.tags
            assert value in measurement.values.get(name, (value,))
    with pytest.raises(KeyError):
        point(series.CALL_STEP, 1, NOW_MS, {"device_id": "x", "step": "press", "purpose": "help"}, {"unheard_of": 1})
