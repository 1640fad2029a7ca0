"""What people do to devices: acts in a device's lane, commands and their outcome, and who owns a device at all."""

import asyncio
import json

import pytest
from pipeline_bench import KEY_ID, Cloud, Devices, until
from sqlalchemy import update

from cloud.device_commands.service import ACCEPT_GRACE_S
from cloud.ingest.leases import LEASE_S, LeaseLostError
from cloud.ports import IntentRefusedError
from cloud.tables import alarm, call, call_transition, command, device, intent, outbox, shard_lease
from devices.bike.messages import Ring, Unlock
from devices.nursing_room.messages import ShowHelpComing, StartSelfTest
from fleet.envelope import Acknowledgement, Lane
from fleet.signing import verify_command
from tests.device_messages import NOW_MS, Speaker, hex_id

pytestmark = pytest.mark.mosquitto

BIKE = Speaker("bike-001", "bike")
ROOM = Speaker("room-001", "nursing_room")
PRESS = hex_id("room-001", "pressed", 1)


@pytest.fixture
def broker(production):
    return production


@pytest.fixture
async def people(broker):
    async with Devices(broker.port).connected() as connected:
        yield connected


@pytest.fixture
def cloud(tmp_path, broker):
    made = Cloud(tmp_path, broker.port)
    made.enrol(BIKE, ROOM)
    return made


async def ordered(cloud, speaker, wanted, **keywords):
    command_id = await cloud.database.write(
        lambda tx: cloud.commands.order(tx, speaker.device_id, wanted, actor="p1", **keywords)
    )
    cloud.commands.after_commit()
    return command_id


async def arrived(cloud, people, speaker, number=0):
    """The command as the device sees it, its signature checked."""
    await until(lambda: len(people.orders[speaker.device_id]) > number, "the command")
    return verify_command(people.orders[speaker.device_id][number], {KEY_ID: cloud.key.public_key()})


# --- acts ---------------------------------------------------------------------------------------------------------


async def test_an_acknowledged_call_is_a_row_a_light_in_the_room_and_the_end_of_paging(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        answer = await cloud.intents.submit("room-001", "acknowledge_call", "p1", {"call_id": PRESS})
        assert answer == {"state": "acknowledged"}
        (row,) = cloud.rows(call)
        assert (row["state"], row["acknowledged_by"]) == ("acknowledged", "p1")
        order = await arrived(cloud, people, ROOM)
        assert ShowHelpComing.model_validate_json(bytes(order.command)) == ShowHelpComing(press_id=PRESS)
        assert (order.device_id, order.generation) == ("room-001", 1)
        await cloud.pass_time(200)
        assert [row["step"] for row in cloud.rows(call_transition)] == ["press", "acknowledge"]
        with pytest.raises(IntentRefusedError, match="already acknowledged"):
            await cloud.intents.submit("room-001", "acknowledge_call", "p2", {"call_id": PRESS})
        assert cloud.rows(call)[0]["acknowledged_by"] == "p1"


async def test_the_ladder_goes_on_in_the_next_process(cloud, people, tmp_path, broker):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        await cloud.pass_time(61)
        await until(lambda: cloud.rows(call)[0]["escalation"] == 1)
        await cloud.pass_time(30)
    second = Cloud(tmp_path, broker.port, clock=cloud.clock)
    async with second.running():
        assert second.rows(call)[0]["escalation"] == 1
        await second.pass_time(31)
        await until(lambda: second.rows(call)[0]["escalation"] == 2)
        steps = [(row["step"], row["event_id"]) for row in second.rows(call_transition)]
        assert steps == [("press", PRESS), ("escalate", "escalation:1"), ("escalate", "escalation:2")]


async def test_a_clock_that_is_set_back_ten_years_does_not_stop_the_ladder(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        cloud.clock.advance(seconds=-10 * 365 * 86_400)
        await cloud.next_round()
        await cloud.pass_time(61)
        await until(lambda: cloud.rows(call)[0]["escalation"] == 1)


async def test_an_alarm_is_acknowledged_with_a_note(cloud, people):
    async with cloud.running():
        people.say(BIKE.telemetry(1, temperature_celsius=70.0))
        (row,) = await until(lambda: cloud.rows(alarm))
        arguments = {"alarm_id": row["id"], "note": "on my way"}
        assert await cloud.intents.submit("bike-001", "acknowledge_alarm", "p1", arguments) == {"state": "acknowledged"}
        assert cloud.rows(alarm)[0]["acknowledged_by"] == "p1"
        with pytest.raises(IntentRefusedError):
            await cloud.intents.submit("bike-001", "acknowledge_alarm", "p1", arguments)


async def test_a_room_with_an_open_call_cannot_be_retired_and_a_retired_one_is_refused(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        with pytest.raises(IntentRefusedError, match="origin"):
            await cloud.intents.submit("room-001", "retire", "p1", {})
        assert cloud.rows(device, device_id="room-001")[0]["retired_at"] is None
        people.say(ROOM.emergency(2, "cleared_at_origin"))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        assert await cloud.intents.submit("room-001", "retire", "p1", {}) == {"retired": True}
        assert cloud.rows(device, device_id="room-001")[0]["retired_at"] == NOW_MS
        people.say(ROOM.emergency(3), ROOM.hello())
        await until(lambda: people.refused(ROOM) == [(Lane.EMERGENCY, 3)])
        await until(lambda: len(cloud.quarantined()) == 2)
        cloud.clock.advance(seconds=100)
        await cloud.intents.submit("room-001", "retire", "p2", {})
        assert cloud.rows(device, device_id="room-001")[0]["retired_at"] == NOW_MS, "once, and not again later"
        with pytest.raises(LookupError):
            await ordered(cloud, ROOM, StartSelfTest())


async def test_acts_on_nothing_and_unknown_acts_are_refused_with_a_reason(cloud):
    async with cloud.running():
        for device_id, name in (("bike-404", "retire"), ("room-001", "clear_call"), ("room-001", "")):
            with pytest.raises(IntentRefusedError):
                await cloud.intents.submit(device_id, name, "p1", {})
        assert [row["done_at"] for row in cloud.rows(intent)] == [NOW_MS] * 3


async def test_an_act_that_waited_for_the_ingester_is_done_when_it_starts(cloud):
    waiting = {"id": hex_id("w"), "device_id": "bike-001", "name": "retire", "actor": "p1", "arguments": "{}", "at": 1}
    cloud.sql.write_here(lambda tx: tx.execute(intent.insert(), waiting))
    async with cloud.running():
        await until(lambda: cloud.rows(device, device_id="bike-001")[0]["retired_at"])


async def test_an_act_put_there_by_another_process_is_found_in_the_middle_of_traffic(cloud, people):
    async with cloud.running():
        seq = 0
        waiting = {"id": hex_id("w"), "device_id": "room-001", "name": "x", "actor": "p1", "arguments": "{}", "at": 1}
        cloud.sql.write_here(lambda tx: tx.execute(intent.insert(), waiting))

        def found():
            nonlocal seq
            seq += 1
            people.say(BIKE.telemetry(seq))  # never a quiet moment
            return cloud.rows(intent)[0]["done_at"]

        await until(found)


# --- commands -----------------------------------------------------------------------------------------------------


async def test_a_command_travels_signed_once_and_its_outcome_is_told_once(cloud, people):
    async with cloud.running():
        command_id = await ordered(cloud, BIKE, Unlock())
        order = await arrived(cloud, people, BIKE)
        assert (order.id, order.device_id, order.issued_at) == (command_id, "bike-001", NOW_MS)
        assert order.not_after == NOW_MS + round(Unlock.lifetime_s_max * 1000)
        async with asyncio.TaskGroup() as group:
            outcome = group.create_task(cloud.commands.outcome(command_id, 10))
            people.say(*(BIKE.reply(command_id, status) for status in ("accepted", "executing", "succeeded")))
        assert outcome.result() == ("succeeded", "")
        await until(lambda: any(command_id in item.replies for item in people.told["bike-001"]))
        told = [item for item in people.told["bike-001"] if isinstance(item, Acknowledgement) and not item.greet]
        assert told
        assert all(item.marks[Lane.TELEMETRY] == 0 for item in told)
        people.say(BIKE.reply(command_id, "succeeded"), BIKE.reply(command_id, "failed", "jam"))
        await until(lambda: sum(command_id in item.replies for item in people.told["bike-001"]) >= 2)
        statuses = [status for _, status, _ in cloud.outcomes]
        assert statuses == ["accepted", "executing", "succeeded"], "each step once, a late word changes nothing"
        assert cloud.rows(command)[0]["status"] == "succeeded"
        assert len(people.orders["bike-001"]) == 1


async def test_another_devices_reply_changes_nothing(cloud, people):
    async with cloud.running():
        command_id = await ordered(cloud, BIKE, Unlock())
        await arrived(cloud, people, BIKE)
        people.say(ROOM.reply(command_id, "succeeded"))
        await until(lambda: any(command_id in item.replies for item in people.told["room-001"]))
        assert (await cloud.commands.outcome(command_id, 0))[0] == "sent"
        people.say(BIKE.reply(command_id, "failed", "jam"))
        assert await cloud.commands.outcome(command_id, 10) == ("failed", "jam")
        assert cloud.outcomes == [(command_id, "failed", "jam")]


async def test_a_command_to_a_device_that_is_away_ends_expired_once(cloud, people):
    async with cloud.running():
        command_id = await ordered(cloud, BIKE, Ring())
        await arrived(cloud, people, BIKE)
        cloud.clock.advance(seconds=Ring.lifetime_s_max + ACCEPT_GRACE_S - 1)
        cloud.commands.after_commit()
        assert (await cloud.commands.outcome(command_id, 0))[0] == "sent"
        cloud.clock.advance(seconds=2)
        cloud.commands.after_commit()
        assert await cloud.commands.outcome(command_id, 10) == ("expired", "expired")
        people.say(BIKE.reply(command_id, "succeeded"))
        await until(lambda: any(command_id in item.replies for item in people.told["bike-001"]))
        assert cloud.outcomes == [(command_id, "expired", "expired")]


async def test_a_command_that_was_never_sent_in_time_is_not_sent_late(cloud, people):
    command_id = await ordered(cloud, BIKE, Unlock())  # the process is not running
    cloud.clock.advance(seconds=Unlock.lifetime_s_max + 1)
    async with cloud.running():
        cloud.clock.advance(seconds=ACCEPT_GRACE_S)
        cloud.commands.after_commit()
        assert await cloud.commands.outcome(command_id, 10) == ("expired", "expired")
        assert people.orders["bike-001"] == []


async def test_a_queue_of_unanswered_commands_is_bounded_and_foreign_commands_are_refused(cloud, people):
    async with cloud.running():
        with pytest.raises(ValueError, match="knows no"):
            await ordered(cloud, BIKE, StartSelfTest())
        with pytest.raises(LookupError):
            await ordered(cloud, Speaker("bike-404", "bike"), Unlock())
        for _ in range(16):
            await ordered(cloud, BIKE, Ring())
        with pytest.raises(ValueError, match="unanswered"):
            await ordered(cloud, BIKE, Ring())
        await until(lambda: len(people.orders["bike-001"]) == 16)


# --- who owns the devices -----------------------------------------------------------------------------------------


async def test_whoever_lost_the_lease_ends_without_committing_and_without_acknowledging(cloud, people):
    async with asyncio.TaskGroup() as group:

        async def process():
            with pytest.raises(ExceptionGroup) as caught:
                await cloud.run()
            assert caught.group_contains(LeaseLostError, depth=None)

        running = group.create_task(process())
        await until(lambda: cloud.link.connected or running.done())
        cloud.sql.write_here(
            lambda tx: tx.execute(update(shard_lease).values(owner="ingester-b", fence=shard_lease.c.fence + 1))
        )
        people.say(ROOM.emergency(1))
        await until(running.done, "the end of the process")
    assert [item for item in people.told["room-001"] if not item.greet] == []


async def test_another_owner_waits_until_the_lease_runs_out(people, tmp_path, broker):
    later_ms = 0

    def real_now_ms():
        return 1_700_000_000_000 + later_ms

    first = Cloud(tmp_path, broker.port, owner="ingester-x", real_now_ms=real_now_ms)
    first.enrol(ROOM)
    async with first.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
    second = Cloud(tmp_path, broker.port, owner="ingester-y", real_now_ms=real_now_ms)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(second.run())
        tries = 0
        refused = second.leases._require_free

        def counted(tx, shards):
            nonlocal tries
            tries += 1
            refused(tx, shards)

        second.leases._require_free = counted
        await until(lambda: tries >= 2, "two tries")
        assert not second.pipeline.ready.is_set()
        assert not second.link.connected
        later_ms = round(LEASE_S * 1000) + 1
        await until(lambda: second.link.connected)
        people.say(ROOM.emergency(1), ROOM.emergency(2))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        assert len(second.events()) == 2
        task.cancel()


async def test_the_same_owner_takes_its_leases_again_at_once(cloud, people, tmp_path, broker):
    async with cloud.running():
        pass
    second = Cloud(tmp_path, broker.port, real_now_ms=lambda: 0)
    async with second.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)


async def test_a_press_under_a_number_that_was_used_before_still_calls_and_is_stored_once(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        fresh = hex_id("a press from a storage that was rolled back")
        for _ in range(3):
            people.say(ROOM.emergency(1, event_id=fresh))
        await until(lambda: len(cloud.rows(call_transition)) == 2, "the second press")
        await cloud.next_round()
        presses = [row["event_id"] for row in cloud.rows(call_transition)]
        assert presses == [PRESS, fresh]


async def test_a_press_behind_a_hole_is_heard_before_the_hole_is_filled(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(2))
        await until(lambda: cloud.rows(call), "the call")
        assert cloud.pipeline.lanes["room-001"].emergency_seq == 0
        people.say(ROOM.emergency(1))
        people.say(ROOM.emergency(2))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        assert len(cloud.rows(call)) == 1
        assert len(cloud.rows(call_transition)) == 2


async def test_an_emergency_that_can_not_be_read_reaches_a_person_and_blocks_nothing(cloud, people):
    async with cloud.running():
        topic, payload = ROOM.emergency(1)
        people.say((topic, payload.replace(b'"press_id"', b'"unknown_field"')))
        people.say(ROOM.emergency(2))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        notices = [json.loads(row["notification"]) for row in cloud.rows(outbox)]
        assert {(notice["kind_of"], notice["priority"]) for notice in notices} == {
            ("system", "emergency"),
            ("call", "emergency"),
        }
        assert all(row["urgent"] == 1 for row in cloud.rows(outbox))
