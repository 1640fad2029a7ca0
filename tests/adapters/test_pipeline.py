"""What devices say becomes durable before it is acknowledged, whatever fails. Real Mosquitto, real SQLite."""

import json

import pytest
from pipeline_bench import KEY_ID, NEVER_S, Cloud, Devices, until
from typer.testing import CliRunner

from cli.app import app
from cloud.tables import alarm, call, device, gap, outbox
from fleet.envelope import Acknowledgement, Lane
from fleet.signing import BadSignatureError, verify_welcome
from fleet.topics import UpChannel, shard_of
from tests.device_messages import NOW_MS, Speaker, hex_id

pytestmark = pytest.mark.mosquitto

BIKE = Speaker("bike-001", "bike")
ROOM = Speaker("room-001", "nursing_room")
OTHER = Speaker("bike-002", "bike")
MACHINE = Speaker("machine-001", "meal_machine")
PLACE = {"latitude": 38.86, "longitude": 121.52, "accuracy_metres": 4.0}


@pytest.fixture
def broker(production):
    return production


@pytest.fixture
async def people(broker):
    """The devices, connected before any cloud is."""
    async with Devices(broker.port).connected() as connected:
        yield connected


@pytest.fixture
def cloud(tmp_path, broker):
    made = Cloud(tmp_path, broker.port)
    made.enrol(BIKE, ROOM, MACHINE)
    return made


def again(cloud, tmp_path, broker, **changes):
    """Another process on the same data."""
    return Cloud(tmp_path, broker.port, clock=cloud.clock, **changes)


def fall(seq, **changes):
    return BIKE.event(seq, "fall", **PLACE, tilt_degrees=80.0, **changes)


# --- greeting -----------------------------------------------------------------------------------------------------


async def test_a_hello_is_answered_with_signed_time_generation_and_marks(tmp_path, broker, people):
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(BIKE, granted=False)
    async with cloud.running():
        first = await people.welcome(BIKE, "1" * 32, generation=0)
        verify_welcome(first, "bike-001", {KEY_ID: cloud.key.public_key()})
        with pytest.raises(BadSignatureError):
            verify_welcome(first, "bike-002", {KEY_ID: cloud.key.public_key()})
        assert (first.time_ms, first.generation, set(first.marks.values())) == (NOW_MS, 1, {0})
        assert cloud.rows(device)[0]["storage_id"] == BIKE.storage_id, "granted durably before it was said"
        people.say(BIKE.telemetry(1), fall(1))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 1)
        second = await people.welcome(BIKE, "2" * 32)
        assert (second.generation, second.marks[Lane.TELEMETRY], second.marks[Lane.EVENT]) == (1, 1, 1)
        renewed = await people.welcome(BIKE, "3" * 32, storage_id="f" * 32)
        assert (renewed.generation, set(renewed.marks.values())) == (2, {0})
        assert cloud.rows(device)[0]["generation"] == 2


async def test_hello_alone_shows_that_a_device_is_connected(cloud, people):
    """Its status was sent while nobody listened, and only the hello is repeated."""
    async with cloud.running():
        await people.welcome(BIKE)
        assert cloud.twin(BIKE)["online"] == 1


async def test_the_link_state_is_durable_before_the_broker_may_forget_it(tmp_path, broker, people):
    cloud = Cloud(tmp_path, broker.port, twin_flush_s=NEVER_S)
    cloud.enrol(BIKE)
    async with cloud.running():
        people.say(BIKE.status(online=True, connection=7))
        await until(lambda: cloud.link.routine.statistics.messages_acknowledged == 1)
        assert (cloud.twin(BIKE)["online"], cloud.twin(BIKE)["link_connection"]) == (1, 7)
        people.say(BIKE.status(online=False, connection=6))  # a will that was overtaken by the next connection
        await until(lambda: cloud.link.routine.statistics.messages_acknowledged == 2)
        assert cloud.twin(BIKE)["online"] == 1


# --- the three lanes ----------------------------------------------------------------------------------------------


async def test_every_lane_ends_in_its_rows_and_is_acknowledged(cloud, people):
    async with cloud.running():
        people.say(BIKE.telemetry(1), BIKE.telemetry(2, battery_percent=70.0), fall(1), ROOM.emergency(1))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 2)
        await people.acknowledged(BIKE, Lane.EVENT, 1)
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        state = json.loads(cloud.twin(BIKE)["state"])
        assert state["reading"]["battery_percent"] == 70.0
        assert state["fallen_at"] == NOW_MS
        assert cloud.spooled() == [BIKE.telemetry(1)[1], BIKE.telemetry(2, battery_percent=70.0)[1]]
        press = hex_id("room-001", "pressed", 1)
        assert cloud.events(device_id="bike-001") == [(hex_id("bike-001", "fall", 1), 1)]
        assert cloud.events(device_id="room-001") == [(press, 1)]
        assert [(row["id"], row["state"]) for row in cloud.rows(call)] == [(press, "calling")]
        assert {row["channel"] for row in cloud.rows(outbox) if row["urgent"]} == {"inbox", "webhook"}
        assert sorted(cloud.handled) == sorted([press, hex_id("bike-001", "fall", 1)])


async def test_holes_repeats_and_evictions_over_the_wire(cloud, people):
    async with cloud.running():
        people.say(fall(2))
        hole = await until(lambda: [item for item in people.told["bike-001"] if item.resend])
        assert hole[0].resend == (Lane.EVENT,)
        people.say(fall(1), fall(2), fall(1), fall(2))
        await people.acknowledged(BIKE, Lane.EVENT, 2)
        payload = {"type": "tamper", "event_id": hex_id("t"), **PLACE}
        people.say((BIKE.topic(Lane.EVENT), BIKE.envelope(Lane.EVENT, 6, payload, evicted_from=3)))
        await people.acknowledged(BIKE, Lane.EVENT, 6)
        assert [(row["first_seq"], row["last_seq"]) for row in cloud.rows(gap)] == [(3, 5)]
        assert [seq for _, seq in cloud.events()] == [1, 2, 6]
        assert len(cloud.handled) == 2


async def test_a_last_will_is_no_sign_of_life(cloud, people):
    async with cloud.running():
        people.say(ROOM.telemetry(1))
        await people.acknowledged(ROOM, Lane.TELEMETRY, 1)
        await cloud.pass_time(30)
        people.say(ROOM.status(online=False))
        await until(lambda: cloud.link.routine.statistics.messages_acknowledged == 2)
        await cloud.pass_time(12)
        await until(lambda: [row["key"] for row in cloud.rows(alarm)] == ["silent"])
        people.say(ROOM.status(online=False, connection=2))
        await until(lambda: cloud.link.routine.statistics.messages_acknowledged == 3)
        assert [row["state"] for row in cloud.rows(alarm)] == ["unacknowledged"]


async def test_a_device_enrolled_while_we_run_is_learned_with_its_first_word(cloud, people):
    late = Speaker("bike-777", "bike")
    async with cloud.running():
        people.say(late.telemetry(1))
        await until(cloud.quarantined)
        assert "unknown device" in cloud.quarantined()[0]["reason"]
        cloud.enrol(late)
        people.say(late.telemetry(1), late.telemetry(2))
        await people.acknowledged(late, Lane.TELEMETRY, 2)
        assert cloud.twin(late)["telemetry_seq"] == 2


# --- failing stores, crashes --------------------------------------------------------------------------------------


async def test_nothing_is_acknowledged_while_the_database_refuses(cloud, people):
    async with cloud.running():
        cloud.database.failing = True
        people.say(ROOM.emergency(1))
        await until(lambda: cloud.database.failures >= 3)
        assert all(message.greet and not message.marks for message in people.told["room-001"])  # no acknowledgement
        assert cloud.link.emergency.statistics.messages_acknowledged == 0
        cloud.database.failing = False
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        await until(lambda: cloud.link.emergency.statistics.messages_acknowledged == 1)
        assert len(cloud.events()) == len(cloud.rows(call)) == 1
        assert len(cloud.handled) == 1


async def test_a_crash_before_the_commit_loses_and_doubles_nothing(cloud, people, tmp_path, broker):
    async with cloud.running():
        people.say(BIKE.telemetry(1), fall(1))
        await people.acknowledged(BIKE, Lane.EVENT, 1)
        cloud.database.failing = True
        people.say(BIKE.telemetry(2), fall(2), ROOM.emergency(1))
        await until(lambda: cloud.database.failures >= 2)
    second = again(cloud, tmp_path, broker)
    async with second.running():
        assert people.mark(BIKE, Lane.EVENT) == 1
        people.say(BIKE.telemetry(2), fall(2), ROOM.emergency(1))
        for speaker, lane, seq in ((BIKE, Lane.EVENT, 2), (BIKE, Lane.TELEMETRY, 2), (ROOM, Lane.EMERGENCY, 1)):
            await people.acknowledged(speaker, lane, seq)
        assert [seq for _, seq in second.events(device_id="bike-001")] == [1, 2]
        assert len(second.rows(call)) == 1
        assert second.spooled() == [BIKE.telemetry(1)[1], BIKE.telemetry(2)[1]]


async def test_telemetry_behind_the_last_commit_is_replayed_from_the_spool(tmp_path, broker, people):
    first = Cloud(tmp_path, broker.port, twin_flush_s=NEVER_S)
    first.enrol(BIKE, OTHER, ROOM)
    said = [BIKE.telemetry(seq, at=NOW_MS - 10_000 + seq, battery_percent=90.0 - seq) for seq in range(1, 6)]
    async with first.running():
        people.say(ROOM.emergency(1))  # the first flush of a start is due at once; this is it
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        people.say(*said, OTHER.telemetry(1))
        await until(lambda: len(first.spooled()) == 6)
        await until(lambda: first.link.routine.statistics.messages_acknowledged == 6)
        assert first.twin(BIKE) == {}, "not committed yet, so not acknowledged yet"
        assert people.mark(BIKE, Lane.TELEMETRY) == 0
    second = again(first, tmp_path, broker, twin_flush_s=0.05)
    async with second.running():
        await until(lambda: second.twin(BIKE).get("telemetry_seq") == 5)
        assert json.loads(second.twin(BIKE)["state"])["reading"]["battery_percent"] == 85.0
        assert second.twin(OTHER)["telemetry_seq"] == 1
        people.say(*said, BIKE.telemetry(6, battery_percent=50.0))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 6)
        last = BIKE.telemetry(6, battery_percent=50.0)
        assert second.spooled() == [data for _, data in (*said, OTHER.telemetry(1), last)]


async def test_a_replay_comes_to_the_same_twins_marks_and_alarms_as_an_undisturbed_run(tmp_path, broker, people):
    story = [
        BIKE.telemetry(seq, at=NOW_MS - 60_000 + seq * 1000, temperature_celsius=celsius)
        for seq, celsius in enumerate([20.0, 65.0, 55.0, 70.0, 20.0], 1)
    ]

    async def told(folder, crashes):
        folder.mkdir()
        cloud = Cloud(folder, broker.port, owner=f"ingester-{crashes}", twin_flush_s=NEVER_S if crashes else 0.02)
        cloud.enrol(BIKE)
        for index, message in enumerate(story):
            async with cloud.running():
                people.say(message)
                await until(lambda: len(cloud.spooled()) > index)  # noqa: B023
                if not crashes:
                    people.say(*story[index + 1 :])
                    await until(lambda: len(cloud.spooled()) == len(story))  # noqa: B023
                    await until(lambda: cloud.twin(BIKE).get("telemetry_seq") == len(story))  # noqa: B023
            cloud = Cloud(folder, broker.port, clock=cloud.clock, owner=f"ingester-{crashes}", twin_flush_s=NEVER_S)
            if not crashes:
                break
        async with cloud.running():
            people.say(fall(1))
            people.told.clear()
            await people.acknowledged(BIKE, Lane.EVENT, 1)
            row = cloud.twin(BIKE)
            kept = ("state", "desk", "generation", "telemetry_seq", "event_seq", "last_reading_at")
            return {name: row[name] for name in kept}, cloud.rows(alarm), len(cloud.spooled())

    undisturbed = await told(tmp_path / "calm", crashes=False)
    assert await told(tmp_path / "wild", crashes=True) == undisturbed
    assert [row["key"] for row in undisturbed[1]][:1] == ["battery_hot"]


async def test_a_full_spool_holds_back_telemetry_alone(tmp_path, broker, people):
    cloud = Cloud(tmp_path, broker.port, spool_bytes_max=1_000)
    cloud.enrol(BIKE, ROOM)
    async with cloud.running():
        people.say(*(BIKE.telemetry(seq) for seq in range(1, 9)))
        await people.heard_by_broker()
        people.say(ROOM.emergency(1), fall(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        await people.acknowledged(BIKE, Lane.EVENT, 1)
        kept = len(cloud.spooled())
        assert kept < 8
        assert cloud.twin(BIKE)["telemetry_seq"] == kept
        assert people.mark(BIKE, Lane.TELEMETRY) == kept
        assert len(cloud.rows(call)) == 1
        cloud.spool._bytes_max = 1_000_000  # somebody made room
        people.say(*(BIKE.telemetry(seq) for seq in range(1, 9)))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 8)
        assert cloud.spooled() == [BIKE.telemetry(seq)[1] for seq in range(1, 9)]


async def test_a_broker_that_is_killed_and_comes_back_costs_nothing(cloud, people, broker):
    async with cloud.running():
        people.say(ROOM.emergency(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        broker.kill()
        await until(lambda: not cloud.link.connected and not people.client.connected)
        broker.start()
        await until(lambda: cloud.link.connected and people.client.connected)
        people.say(ROOM.emergency(1), ROOM.emergency(2))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        assert len(cloud.events()) == 2


# --- bad input ----------------------------------------------------------------------------------------------------


def reading(seq, at):
    return BIKE.topic(Lane.TELEMETRY), BIKE.envelope(Lane.TELEMETRY, seq, {"readings": [BIKE.reading(at)]}, at)


def bad_input():
    """(name, message, part of the reason), every sort of bad input once."""
    other_shard = (shard_of("bike-001") + 1) % 64
    topic, data = BIKE.telemetry(1)
    stranger = Speaker("bike-999", "bike")
    past, future = NOW_MS - 4_000_000_000_000 // 10, NOW_MS + 400_000_000_000
    return [
        ("undecodable", (topic, b"\xff\x00rubbish"), ""),
        ("empty", (topic, b""), ""),
        ("nested too deep", (topic, b"[" * 60_000), ""),
        ("oversized", (topic, data + b" " * 70_000), "more than"),
        ("another version", (topic, data.replace(b'"version":1', b'"version":9')), "version"),
        ("unknown device", stranger.telemetry(1), "unknown device"),
        ("wrong shard", (f"f/{other_shard}/bike-001/up/telemetry", data), "shard"),
        ("topic is not the payload's", (ROOM.topic(Lane.TELEMETRY), data), "topic says"),
        ("lane is not the topic's", (ROOM.topic(Lane.EMERGENCY), ROOM.envelope(Lane.EVENT, 1, {})), "lane"),
        ("hello of another kind", Speaker("room-001", "bike").hello(), "enrolled as"),
        ("reply without sense", (BIKE.topic(UpChannel.REPLY), b"{}"), "required"),
        ("status without sense", (BIKE.topic(UpChannel.STATUS), b'{"online":1}'), ""),
        ("another kind", (BIKE.topic(Lane.EVENT), BIKE.envelope(Lane.EVENT, 1, {}, kind="bus")), "enrolled as"),
        ("wrong schema", (BIKE.topic(Lane.EVENT), BIKE.envelope(Lane.EVENT, 2, {"type": "fall"})), "required"),
        ("absurd value", BIKE.event(3, "fall", **PLACE, tilt_degrees=1e9), "180"),
        ("years ago", reading(1, at=past), "days old"),
        ("years ahead", reading(2, at=future), "future"),
        ("not a press", (ROOM.topic(Lane.EMERGENCY), ROOM.envelope(Lane.EMERGENCY, 1, {"type": "x"})), "tag"),
    ]  # fmt: skip


async def test_every_sort_of_bad_input_is_kept_and_listed_and_blocks_nothing(cloud, people, tmp_path):
    bad = bad_input()
    async with cloud.running():
        people.say(*(message for _, message, _ in bad))
        people.say(BIKE.telemetry(3), fall(4), ROOM.emergency(2))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 3)
        await people.acknowledged(BIKE, Lane.EVENT, 4)
        await people.acknowledged(ROOM, Lane.EMERGENCY, 2)
        await until(lambda: len(cloud.quarantined()) == len(bad))
        refused = [(Lane.EVENT, seq) for seq in (1, 2, 3)] + [(Lane.TELEMETRY, seq) for seq in (1, 2)]
        assert sorted(people.refused(BIKE)) == refused
        assert people.refused(ROOM) == [(Lane.EMERGENCY, 1)]
        kept = {(row["topic"], bytes(row["payload"])): row["reason"] for row in cloud.quarantined()}
        for name, message, reason in bad:
            assert reason in kept[message], name
        assert [seq for _, seq in cloud.events()] in ([4, 2], [2, 4])
        assert len(cloud.rows(call)) == 1
    result = CliRunner().invoke(app, ["quarantine", "--json", "--data-directory", str(tmp_path)])
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert {(row["topic"], row["payload_hex"]) for row in listed} == {(t, d.hex()) for _, (t, d), _ in bad}
    assert all(row["reason"] and row["received_at"] == NOW_MS for row in listed)


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400, -3_600, 10 * 365 * 86_400])
async def test_a_clock_of_the_cloud_that_is_set_loses_no_reading_and_no_event(cloud, people, jump_s):
    async with cloud.running():
        people.say(BIKE.telemetry(1))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 1)
        cloud.clock.advance(seconds=jump_s)
        await cloud.next_round()
        people.say(BIKE.telemetry(2), fall(1))
        await people.acknowledged(BIKE, Lane.TELEMETRY, 2)
        await people.acknowledged(BIKE, Lane.EVENT, 1)
        assert cloud.quarantined() == []
        assert people.refused(BIKE) == []
        assert [seq for _, seq in cloud.events()] == [1]


async def test_an_emergency_with_a_wild_clock_opens_a_call_of_today(cloud, people):
    async with cloud.running():
        people.say(ROOM.emergency(1, at=253_402_300_799_000), MACHINE.telemetry(1))
        await people.acknowledged(ROOM, Lane.EMERGENCY, 1)
        (row,) = cloud.rows(call)
        assert (row["pressed_at"], row["state"]) == (NOW_MS, "calling")
        assert cloud.quarantined() == []
        assert all(isinstance(item, Acknowledgement) and not item.refused for item in people.told["room-001"])
