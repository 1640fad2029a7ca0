"""Faults around a press: full disks, old copies of a storage, dead networks, wrong clocks. It is never lost."""

import asyncio
import sqlite3
from collections import Counter
from dataclasses import replace

import pytest

from devices.nursing_room import driver as room_driver
from devices.nursing_room import frames as room_frames
from devices.nursing_room.messages import Pressed
from edge.event_keeper import EventKeeper
from edge.records import JournalFullError
from edge.trusted_time import CorrectedClock, TrustedTime
from fleet import envelope
from fleet.clock import ManualClock
from fleet.envelope import Acknowledgement, Lane
from fleet.topics import DownChannel, UpChannel
from tests.edge_support import DEVICE, QUICK, Rig, doorbell_kind, eventually

YEAR_MS = 365 * 86_400_000


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


def full(*_):
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


# --- the journal refuses ----------------------------------------------------------------------------------------


class Refusing:
    """A journal that takes nothing of some lanes."""

    def __init__(self):
        self.lanes = set(Lane)
        self.taken = []
        self.slow_turns = 1

    async def append(self, device_id, lane, occurred_at, payload, event_id, **_):  # noqa: ARG002  # the journal's own
        turns, self.slow_turns = self.slow_turns, 1
        for _ in range(turns):
            await asyncio.sleep(0)
        if lane in self.lanes:
            raise JournalFullError("full")
        if event_id in self.taken:
            return None
        self.taken.append(event_id)
        return object()


async def test_a_press_the_journal_refused_is_not_acknowledged_to_a_driver_that_tells_it_once():
    journal, written = Refusing(), []
    keeper = EventKeeper("room-001", journal, 0.001, Counter(), written.append)
    driver = room_driver.create("room-001")
    press = room_frames.encode_event(1_800_000_000_000, Pressed(event_id="1" * 32, press_id="1" * 32))
    for _ in range(3):  # the second and third come without the event, and with its acknowledgement
        output = driver.on_bytes(press, 1_800_000_000_000)
        await keeper.keep(output.events, output.after_commit)
    assert written == []
    journal.lanes.clear()
    output = driver.on_bytes(press, 1_800_000_000_000)
    assert output.events == ()
    await keeper.keep(output.events, output.after_commit)
    assert journal.taken == ["1" * 32]
    assert written == [output.after_commit]


async def test_acknowledgements_keep_the_order_of_the_outputs():
    journal, written = Refusing(), []
    journal.lanes = {Lane.EVENT}
    journal.slow_turns = 20  # what comes later would be done earlier
    keeper = EventKeeper("room-001", journal, 0.001, Counter(), written.append)
    press = Pressed(event_id="1" * 32, press_id="1" * 32)
    other = press.model_copy(update={"event_id": "2" * 32})
    await asyncio.gather(
        keeper.keep([(1, press)], b"first "), keeper.keep([], b"second "), keeper.keep([(1, other)], b"3")
    )
    assert b"".join(written) == b"first second 3"


async def test_a_refused_event_arrives_even_if_the_hardware_never_repeats_it(tmp_path):
    async with Rig(tmp_path).running() as rig:
        store = rig.host._journal.store
        append, store.append = store.append, full
        rig.bell.say(f"O {'1' * 32}")
        await eventually(lambda: rig.agent.counts["events_refused"] >= 2)
        assert rig.bell.heard(f"A {'1' * 32}") == 0
        store.append = append
        await eventually(lambda: rig.cloud.event_ids(Lane.EVENT) == ["1" * 32])


# --- a full disk at the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_an_agent_that_starts_on_a_full_disk_still_calls_for_help(tmp_path, known):
    first = Rig(tmp_path)
    if known:
        async with first.running():
            first.bell.say(f"P {'1' * 32}")
            await eventually(lambda: first.bell.heard(f"L {'1' * 32}"))
    else:
        first.host._journal.store.close()
        first.host._journal.shut()
    second = Rig(tmp_path, cloud=first.cloud)
    store = second.host._journal.store
    begin, store.begin = store.begin, full
    async with second.running():
        second.bell.say(f"P {'2' * 32}")
        await eventually(lambda: second.bell.heard(f"L {'2' * 32}"))
        assert second.host._journal.reserved == 1
        boots = second.cloud.hellos[-1].boots
        assert boots == int(known)
        store.begin = begin
        second.bell.say(f"O {'3' * 32}")
        await eventually(lambda: second.cloud.event_ids(Lane.EVENT) == ["3" * 32])
        storage = second.cloud.hellos[-1].storage_id
    third = Rig(tmp_path, cloud=first.cloud)
    async with third.running():
        assert (third.cloud.hellos[-1].storage_id, third.cloud.hellos[-1].boots) == (storage, boots + 1)
    assert third.cloud.event_ids(Lane.EMERGENCY) == ["1" * 32, "2" * 32][not known :]
    assert set(first.cloud.generations) == {DEVICE}
    assert first.cloud.generation(DEVICE) == 1


async def test_a_grant_that_finds_no_room_ends_nothing_and_emergencies_go_on(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        first.bell.say(f"P {'1' * 32}")
        await eventually(lambda: first.bell.heard(f"L {'1' * 32}"))
    first.cloud.generations[DEVICE] = ("f" * 32, 4)  # the cloud will grant the fifth
    second = Rig(tmp_path, cloud=first.cloud)
    store = second.host._journal.store
    grant, store.grant = store.grant, full
    async with second.running(connected=False):
        second.bell.say(f"P {'2' * 32}")
        await eventually(lambda: second.agent.uplink is not None and second.agent.uplink.counts["grants_postponed"] > 1)
        await eventually(lambda: "2" * 32 in second.cloud.accepted_early)
        store.grant = grant
        await eventually(lambda: second.bell.heard(f"L {'2' * 32}"))
    assert second.cloud.committed[-1].generation == 5


# --- one emergency the cloud never takes ------------------------------------------------------------------------


async def test_an_emergency_nobody_refused_is_never_set_aside_and_hides_no_other(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.never_take = {(Lane.EMERGENCY, 1)}
    presses = [f"{number:032x}" for number in range(40)]
    async with rig.running():
        for event_id in presses:
            rig.bell.say(f"P {event_id}")
        await eventually(lambda: rig.cloud.accepted_early == presses[1:])
        await eventually(lambda: rig.agent.uplink.counts["timeouts"] > 3 * QUICK.stuck_strikes_max, within_s=20)
        assert rig.agent.uplink.counts["set_aside"] == 0
        rig.cloud.never_take.clear()
        await eventually(lambda: rig.cloud.event_ids(Lane.EMERGENCY) == presses)


# --- an old copy of the storage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
async def test_fresh_presses_on_a_storage_older_than_the_cloud_are_all_sent(tmp_path, again):
    first = Rig(tmp_path)
    async with first.running():
        first.bell.say(f"P {'1' * 32}")
        await eventually(lambda: first.bell.heard(f"L {'1' * 32}"))
    first.cloud.marks[DEVICE, 1, Lane.EMERGENCY] = 4  # of a later time, which this storage does not know
    first.cloud.marks[DEVICE, 1, Lane.EVENT] = 2
    fresh, opened = [f"{number}" * 32 for number in range(2, 8)], [f"{number}" * 32 for number in "abc"]

    async def press(rig):
        for event_id in fresh:
            rig.bell.say(f"P {event_id}")
        for event_id in [] if again else opened:
            rig.bell.say(f"O {event_id}")
        await eventually(lambda: rig.bell.heard(f"A {fresh[-1]}") and (again or rig.bell.heard(f"A {opened[-1]}")))

    second = Rig(tmp_path, cloud=first.cloud)
    second.link.up = False
    async with second.running(connected=False):
        await press(second)
        if not again:
            second.link.up = True
            await eventually(lambda: len(second.cloud.event_ids(Lane.EVENT)) == 3)
            await eventually(lambda: second.bell.heard(f"L {fresh[-1]}"))
    if again:  # a second start hides that the first one was never connected
        third = Rig(tmp_path, cloud=first.cloud)
        third.link.hold = {UpChannel.EMERGENCY}
        async with third.running():  # welcomed before any press got through
            third.link.cut(up=True)
            third.link.hold = set()
            await eventually(lambda: third.bell.heard(f"L {fresh[-1]}"))
    arrived = first.cloud.event_ids(Lane.EMERGENCY) + first.cloud.accepted_early
    assert set(arrived) == {"1" * 32, *fresh}
    assert again or first.cloud.event_ids(Lane.EVENT) == opened


async def test_an_acknowledgement_of_another_generation_asks_for_a_hello_at_once(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        count = len(rig.cloud.hellos)
        rig.link.send(DownChannel.ACK, envelope.encode(Acknowledgement(9, {Lane.EMERGENCY: 1})))
        await eventually(lambda: len(rig.cloud.hellos) > count)


# --- dead networks ----------------------------------------------------------------------------------------------


async def test_a_press_leaves_a_network_that_swallows_everything_for_a_new_connection(tmp_path):
    rig = Rig(tmp_path)
    async with rig.running():
        rig.link.swallows = True
        rig.bell.say(f"P {'1' * 32}")
        await eventually(lambda: rig.agent.uplink.counts["publishes_given_up"] == 1)
        connects = rig.link.connects
        await eventually(lambda: rig.link.connects >= connects + 2)  # attempts that hang are given up as well
        rig.link.swallows = False
        await eventually(lambda: rig.bell.heard(f"L {'1' * 32}"))


async def test_without_an_emergency_a_slow_network_is_left_alone(tmp_path):
    async with Rig(tmp_path).running() as rig:
        rig.link.hold = {UpChannel.EVENT}
        rig.bell.say(f"O {'1' * 32}")
        await eventually(lambda: rig.link.log[-1][0] is UpChannel.EVENT)
        await asyncio.sleep(3 * QUICK.urgent_s)
        assert rig.link.connects == 2  # the first, and the one that carries the granted generation
        rig.link.release()
        await eventually(lambda: rig.cloud.committed)


# --- clocks -----------------------------------------------------------------------------------------------------


def test_trusted_time_is_never_behind_a_late_welcome():
    clock = ManualClock(speed=2.0)
    trusted = TrustedTime(clock)
    asked_s, said_ms = clock.monotonic_s(), clock.now_ms()
    clock.advance(seconds=8)  # the answer was held up
    trusted.set(said_ms, asked_s)
    assert trusted.latest_ms() == clock.now_ms()
    assert trusted.likely_ms() == (clock.now_ms() - 4_000, 4_000)


@pytest.mark.parametrize(("skew_s", "corrected"), [(30, False), (-30, False), (100, True), (-(10**9), True)])
def test_the_wall_clock_is_corrected_only_when_it_is_plainly_wrong(skew_s, corrected):
    clock = ManualClock()
    trusted = TrustedTime(clock)
    now_ms = clock.now_ms()
    trusted.set(now_ms, clock.monotonic_s())
    clock.jump(seconds=skew_s)
    assert CorrectedClock(clock, trusted).now_ms() == (now_ms if corrected else now_ms + skew_s * 1000)


async def test_an_event_under_a_wrong_clock_carries_the_cloud_s_time(tmp_path):
    rig = Rig(tmp_path)
    cloud_clock = type(rig.clock)()
    rig.cloud.clock = cloud_clock
    rig.clock.skew_ms = -10 * YEAR_MS
    async with rig.running():
        rig.bell.say(f"O {'1' * 32}")
        rig.bell.say("R 1.0")
        await eventually(lambda: rig.cloud.event_ids(Lane.EVENT) and rig.cloud.readings())
    assert all(abs(message.occurred_at - cloud_clock.now_ms()) < 10_000 for message in rig.cloud.committed)
    assert abs(rig.cloud.readings()[0]["at"] - cloud_clock.now_ms()) < 10_000


async def test_trusted_time_is_renewed_on_a_connection_that_stays(tmp_path):
    rig = Rig(tmp_path, timing=replace(QUICK, hello_renew_s=0.05))
    async with rig.running():
        count = len(rig.cloud.hellos)
        await eventually(lambda: len(rig.cloud.hellos) > count + 2)
        assert rig.link.connects == 2
