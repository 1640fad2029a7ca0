"""The agent of one device against a scripted cloud: nothing lost, nothing doubled, emergencies first."""

import asyncio
import random
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import devices
from edge.agent import EdgeAgent
from edge.host import EdgeHost
from edge.identity import Identity
from edge.link import LinkError
from edge.records import Bounds
from edge.transports import memory_pair
from fleet import envelope
from fleet.envelope import READINGS_PER_MESSAGE_MAX, Lane
from fleet.topics import UpChannel
from tests.edge_support import DEVICE, QUICK, Cloud, FakeLink, Rig, SystemClock, doorbell_kind, eventually


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


def ids(count, letter="a"):
    return [f"{letter}{number:031x}" for number in range(count)]


async def test_readings_events_and_presses_arrive_once_and_in_order(tmp_path):
    presses, openings = ids(5), ids(20, "b")
    async with Rig(tmp_path).running() as rig:
        for number, event_id in enumerate(openings):
            rig.bell.say(f"O {event_id}")
            rig.bell.say(f"R {number}.5")
        for event_id in presses:
            rig.bell.say(f"P {event_id}")
        await eventually(lambda: len(rig.cloud.committed) >= 25 and len(rig.cloud.readings()) == 20)
        await eventually(lambda: all(rig.bell.heard(f"L {event_id}") for event_id in presses))
        assert rig.cloud.event_ids(Lane.EMERGENCY) == presses
        assert rig.cloud.event_ids(Lane.EVENT) == openings
        assert [reading["temperature_celsius"] for reading in rig.cloud.readings()] == [n + 0.5 for n in range(20)]
        assert all(rig.bell.heard(f"A {event_id}") == 1 for event_id in presses + openings)
        for lane in Lane:
            seqs = [message.seq for message in rig.cloud.committed if message.lane is lane]
            assert seqs == list(range(1, len(seqs) + 1))
        statistics = await rig.host.statistics()
        assert statistics.connected == 1
        assert statistics.acknowledged == len(rig.cloud.committed) == statistics.journalled
    assert rig.cloud.statuses[-1].online is False


async def test_a_reading_shares_a_message_but_never_waits_long(tmp_path):
    async with Rig(tmp_path).running() as rig:
        rig.bell.say("R 1.0")
        rig.bell.say("R 2.0")
        rig.bell.say("R 3.0")
        await eventually(lambda: len(rig.cloud.readings()) == 3)
    assert [len(payload["readings"]) for payload in rig.cloud.payloads(Lane.TELEMETRY)] == [2, 1]


async def test_nothing_is_sent_before_a_generation_is_known_but_everything_is_journalled(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.welcomes = False
    async with rig.running(connected=False):
        rig.bell.say(f"P {'1' * 32}")
        rig.bell.say(f"O {'2' * 32}")
        await eventually(lambda: rig.bell.heard(f"A {'1' * 32}") and len(rig.cloud.hellos) >= 2)
        assert rig.cloud.received == []
        rig.cloud.welcomes = True
        await eventually(lambda: len(rig.cloud.committed) == 2)
        assert {message.generation for message in rig.cloud.committed} == {1}
        # The last will of the connection that brought the generation was made without it, so it was renewed.
        await eventually(lambda: rig.agent.connected)
        assert envelope.boot_epoch(1, 0) == rig.link.wills[-1].boot_epoch
        assert rig.link.wills[-1].connection > rig.link.wills[0].connection


async def test_an_emergency_overtakes_a_backlog_of_telemetry(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        rig.link.hold = {UpChannel.TELEMETRY}
        for number in range(40):
            rig.bell.say(f"R {number}")
        await eventually(lambda: rig.link.log[-1][0] is UpChannel.TELEMETRY)
        rig.bell.say(f"P {'1' * 32}")
        await eventually(lambda: rig.bell.heard(f"L {'1' * 32}"))
        telemetry = [channel for channel, _ in rig.link.log if channel is UpChannel.TELEMETRY]
        assert len(telemetry) == 1, "one telemetry message may be under way in front of an emergency, no more"
        rig.link.release()
        await eventually(lambda: len(rig.cloud.readings()) == 40)
    assert rig.link.in_flight_max[UpChannel.TELEMETRY] == 1


async def test_lost_and_repeated_acknowledgements_cost_time_but_nothing_else(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.acknowledges_twice = True
    presses = ids(12)
    async with rig.running():
        rig.cloud.lost_acknowledgements = 15
        for event_id in presses:
            rig.bell.say(f"P {event_id}")
        await eventually(lambda: rig.bell.heard(f"L {presses[-1]}"))
        statistics = await rig.host.statistics()
        assert statistics.counts["resent"] > 0
    assert rig.cloud.event_ids(Lane.EMERGENCY) == presses
    assert all(rig.bell.heard(f"L {event_id}") == 1 for event_id in presses)


async def test_a_gap_makes_the_lane_go_back(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        rig.bell.say(f"O {'1' * 32}")
        await eventually(lambda: len(rig.cloud.committed) == 1)
        rig.link.hold = {UpChannel.EVENT}
        for event_id in ids(6):
            rig.bell.say(f"O {event_id}")
        await eventually(lambda: rig.link.log[-1][0] is UpChannel.EVENT)
        taken, rig.cloud._take = rig.cloud._take, lambda *_: []  # the cloud dies before it commits …
        rig.link.release()
        await eventually(lambda: len([c for c, _ in rig.link.log if c is UpChannel.EVENT]) >= 5)
        rig.cloud._take = taken  # … and its successor knows only what was committed
        await eventually(lambda: len(rig.cloud.committed) == 7)
    assert rig.cloud.event_ids(Lane.EVENT) == ["1" * 32, *ids(6)]


async def test_a_refused_message_is_set_aside_with_its_reason_and_blocks_nothing(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.refuse = {(Lane.EMERGENCY, 1)}
    async with rig.running():
        rig.bell.say(f"P {'1' * 32}")
        rig.bell.say(f"P {'2' * 32}")
        await eventually(lambda: rig.bell.heard(f"L {'2' * 32}"))
        aside = await rig.host._journal.read(
            lambda store: store._connection.execute("SELECT lane, seq, reason FROM set_aside").fetchall()
        )
    assert aside == [("emergency", 1, "absurd")]
    assert rig.bell.heard(f"L {'1' * 32}") == 0, "the light means: somebody will see it"


async def test_a_message_the_living_cloud_never_takes_is_set_aside_and_declared(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.never_take = {(Lane.EVENT, 2)}
    async with rig.running():
        for event_id in ids(4):
            rig.bell.say(f"O {event_id}")
        await eventually(lambda: len(rig.cloud.committed) == 3)
        assert (await rig.host.statistics()).counts["set_aside"] == 1
    assert [(message.seq, message.evicted_from) for message in rig.cloud.committed] == [(1, None), (3, 2), (4, None)]


async def test_a_dead_cloud_costs_no_message_however_long_it_is_dead(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        answer, rig.cloud.answer = rig.cloud.answer, lambda *_: []
        rig.bell.say(f"O {'1' * 32}")
        await eventually(lambda: rig.agent.uplink.counts["timeouts"] > 3 * QUICK.stuck_strikes_max)
        rig.cloud.answer = answer
        await eventually(lambda: len(rig.cloud.committed) == 1)
        assert (await rig.host.statistics()).counts.get("set_aside", 0) == 0


async def test_offline_eviction_is_declared_and_emergencies_survive(tmp_path):
    rig = Rig(tmp_path, bounds=Bounds(rows_max=4))
    rig.link.up = False
    presses = ids(3)
    async with rig.running(connected=False):
        for number in range(8 * READINGS_PER_MESSAGE_MAX):
            rig.bell.say(f"R {number % 40}")
        for event_id in presses:
            rig.bell.say(f"P {event_id}")
        await eventually(lambda: rig.host._journal.journalled == 11)
        rig.link.up = True
        await eventually(lambda: len(rig.cloud.committed) == 7)
        statistics = await rig.host.statistics()
        assert statistics.evicted[Lane.TELEMETRY] == 4
    telemetry = [message for message in rig.cloud.committed if message.lane is Lane.TELEMETRY]
    assert (telemetry[0].seq, telemetry[0].evicted_from) == (5, 1)
    assert rig.cloud.event_ids(Lane.EMERGENCY) == presses
    assert not rig.cloud.gaps


async def test_a_waiting_emergency_reconnects_at_once(tmp_path):
    patient = type(QUICK)(
        reconnect_jitter_s=600, resend_first_s=QUICK.resend_first_s, resend_most_s=QUICK.resend_most_s
    )
    rig = Rig(tmp_path, timing=patient)
    async with rig.running():
        rig.link.cut(up=True)
        await eventually(lambda: not rig.agent.connected)
        rig.bell.say(f"P {'1' * 32}")
        await eventually(lambda: rig.bell.heard(f"L {'1' * 32}"), within_s=2)


async def test_seqs_and_pending_messages_survive_a_restart(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        first.bell.say(f"P {'1' * 32}")
        await eventually(lambda: first.bell.heard(f"L {'1' * 32}"))
        first.link.cut()
        await eventually(lambda: not first.agent.connected)
        first.bell.say(f"P {'2' * 32}")
        await eventually(lambda: first.bell.heard(f"A {'2' * 32}"))
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        second.bell.say(f"P {'2' * 32}")  # the hardware saw no acknowledgement in its own opinion
        second.bell.say(f"P {'3' * 32}")
        await eventually(lambda: second.bell.heard(f"L {'3' * 32}"))
    assert first.cloud.event_ids(Lane.EMERGENCY) == ["1" * 32, "2" * 32, "3" * 32]
    assert [message.seq for message in first.cloud.committed] == [1, 2, 3]
    boots = [message.boot_epoch - envelope.boot_epoch(1, 0) for message in first.cloud.committed]
    assert boots == [0, 0, 1]
    assert first.cloud.hellos[-1].boots == 1


async def test_a_press_committed_just_before_a_crash_still_lights_the_lamp(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        first.cloud.lost_acknowledgements = 10**6
        first.bell.say(f"P {'1' * 32}")
        await eventually(lambda: first.cloud.committed)
    first.cloud.lost_acknowledgements = 0
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        await eventually(lambda: second.bell.heard(f"L {'1' * 32}") == 1)
    assert first.cloud.event_ids(Lane.EMERGENCY) == ["1" * 32]


async def test_a_cloud_that_lost_its_end_is_told_what_is_gone(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        for event_id in ids(5):
            rig.bell.say(f"O {event_id}")
        await eventually(lambda: len(rig.cloud.committed) == 5 and not rig.agent.uplink._windows[Lane.EVENT].head)
        rig.cloud.marks[DEVICE, 1, Lane.EVENT] = 2  # restored from a backup
        rig.bell.say(f"O {'9' * 32}")
        await eventually(lambda: len(rig.cloud.committed) == 6)
    assert (rig.cloud.committed[-1].seq, rig.cloud.committed[-1].evicted_from) == (6, 3)


async def test_a_storage_that_fell_behind_itself_does_not_repeat_keys(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        first.bell.say(f"O {'1' * 32}")
        await eventually(lambda: first.cloud.committed)
    first.cloud.marks[DEVICE, 1, Lane.EVENT] = 50
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        second.bell.say(f"O {'2' * 32}")
        await eventually(lambda: len(first.cloud.committed) == 2)
    assert first.cloud.committed[-1].seq == 1
    assert (first.cloud.committed[-1].generation, first.cloud.hellos[-1].generation) == (2, 2)


async def test_a_forged_welcome_grants_nothing(tmp_path):
    rig = Rig(tmp_path)
    trusted, rig.cloud.key = rig.cloud.key, Ed25519PrivateKey.generate()
    async with rig.running(connected=False):
        await eventually(lambda: DEVICE in rig.host.agents and rig.agent.uplink is not None)
        await eventually(lambda: rig.agent.uplink.counts["welcomes_ignored"] >= 2)
        assert rig.agent.uplink.generation == 0
        rig.cloud.key = trusted
        await eventually(lambda: rig.agent.connected)


async def test_a_line_that_breaks_is_opened_again(tmp_path):
    async with Rig(tmp_path).running() as rig:
        await eventually(lambda: rig.bell.heard("S") == 1)
        rig.bell.line.peer.cut()
        await eventually(lambda: rig.bell.heard("S") == 2)
        rig.bell.say(f"P {'1' * 32}")
        await eventually(lambda: rig.bell.heard(f"L {'1' * 32}"))


async def test_a_journal_damaged_while_running_is_begun_anew_without_ending_the_process(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        rig.bell.say(f"P {'1' * 32}")
        await eventually(lambda: rig.bell.heard(f"L {'1' * 32}"))
        broken = rig.host._journal

        def fail(*_):
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        broken.store.append = fail
        rig.bell.say(f"P {'2' * 32}")  # kept in the reserve, outside the database
        await eventually(lambda: rig.host._journal is not broken)
        await eventually(lambda: rig.bell.heard(f"L {'2' * 32}"))
    assert rig.cloud.event_ids(Lane.EMERGENCY) == ["1" * 32, "2" * 32]


async def test_a_failing_agent_ends_the_host_with_its_error(tmp_path):
    rig = Rig(tmp_path)
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # the host runs in a context
        async with rig.running():
            rig.bell.say("R not-a-number")
            await eventually(lambda: False)
    assert caught.group_contains(ValueError, match="not-a-number")


async def test_a_kind_s_real_driver_runs_in_the_host(tmp_path):
    clock = SystemClock()
    cloud = Cloud(clock)
    host = EdgeHost(clock, random.Random(1), tmp_path / "journal.sqlite", timing=QUICK)
    links = {}
    for name, kind in devices.kinds().items():
        device_id = f"{kind.id_prefix}-001"
        edge_end, _ = memory_pair()
        links[device_id] = FakeLink(device_id, cloud)
        host.add(device_id, name, edge_end, links[device_id], Identity(None, cloud.verifiers))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(host.run())
        await eventually(lambda: len(host.agents) == len(links) and all(a.connected for a in host.agents.values()))
        with pytest.raises(ValueError, match="already"):
            host.add(device_id, name, edge_end, links[device_id], Identity(None, cloud.verifiers))
        host.stop()
        await running


async def test_a_link_that_breaks_while_the_agent_is_ended_does_not_keep_it_alive(tmp_path, monkeypatch):
    connects = []

    async def break_when_cancelled():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LinkError("broke just then") from None

    async def connect(*_arguments):
        connects.append("made")
        if len(connects) > 1:  # the end was taken for a broken link: let the test finish and fail
            raise asyncio.CancelledError
        async with asyncio.TaskGroup() as group:
            group.create_task(break_when_cancelled())

    monkeypatch.setattr(EdgeAgent, "_connect", connect)
    async with asyncio.timeout(5.0), Rig(tmp_path).running(connected=False):
        await eventually(lambda: connects)
    assert connects == ["made"]


async def test_a_link_that_breaks_at_any_moment_around_the_end_does_not_keep_the_agent_alive(tmp_path):
    """Step by step of the event loop: the end comes so many steps after the break, or the break after the end."""
    for steps in range(-6, 24):
        rig = Rig(tmp_path / f"{steps}")
        running = asyncio.create_task(rig.host.run())
        await eventually(lambda rig=rig: DEVICE in rig.host.agents and rig.agent.connected)
        doings = [lambda rig=rig: rig.link.cut(up=True), rig.host.stop]
        for doing in doings if steps >= 0 else reversed(doings):
            doing()
            for _ in range(abs(steps)):
                await asyncio.sleep(0)
        done, _ = await asyncio.wait({running}, timeout=5.0)
        assert done, f"it lives on: the end came {steps} steps after the break"
