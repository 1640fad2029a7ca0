"""Boxes that don't know the time: what they stamp is corrected or bounded when they learn it, in order, never lost."""

import sqlite3
from contextlib import closing

import pytest

from edge.journal_store import JournalStore
from edge.records import Bounds, JournalError
from edge.salvage import DamagedDatabase
from fleet.envelope import Lane, TimeQuality
from tests.edge_support import DEVICE, Rig, SystemClock, doorbell_kind, eventually

YEAR_MS = 365 * 86_400_000
NEAR_MS = 20_000


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


def box(tmp_path, cloud=None, *, years=0.0, up=True):
    """A start of the box with a wall clock that is wrong by `years`; the cloud's is right."""
    rig = Rig(tmp_path, cloud=cloud)
    rig.clock.skew_ms = round(years * YEAR_MS)
    if cloud is None:
        rig.cloud.clock = SystemClock()
    rig.link.up = up
    return rig


async def say(rig, *lines):
    for line in lines:
        rig.bell.say(line)
        if line[0] in "PO":
            await eventually(lambda line=line: rig.bell.heard(f"A {line[2:]}"))


async def readings_kept(rig, count):
    def waiting():
        return rig.agent._telemetry.waiting + rig.agent.counts["readings"] >= count

    await eventually(waiting)


def stamps(cloud, lane):
    return [message.occurred_at for message in cloud.committed if message.lane is lane]


def qualities(cloud):
    return {message.time_quality for message in cloud.committed}


@pytest.mark.parametrize("years", [-20.0, 3.0])
async def test_what_was_stamped_before_the_first_welcome_is_corrected_in_order(tmp_path, years):
    rig = box(tmp_path, years=years, up=False)
    now_ms = rig.cloud.clock.now_ms()
    async with rig.running(connected=False):
        await say(rig, f"O {'1' * 32}", "R 1.0", f"P {'2' * 32}", "R 2.0", f"O {'3' * 32}")
        await readings_kept(rig, 2)
        rig.link.up = True
        await eventually(lambda: len(rig.cloud.readings()) == 2 and len(rig.cloud.event_ids(Lane.EVENT)) == 2)
        await eventually(lambda: rig.cloud.event_ids(Lane.EMERGENCY) == ["2" * 32])
        await say(rig, f"O {'4' * 32}")
        await eventually(lambda: len(rig.cloud.event_ids(Lane.EVENT)) == 3)
    assert rig.cloud.event_ids(Lane.EVENT) == ["1" * 32, "3" * 32, "4" * 32]
    assert [reading["temperature_celsius"] for reading in rig.cloud.readings()] == [1.0, 2.0]
    # An emergency that left before the first welcome carries the box's own time: the cloud takes it as of its receipt.
    later = [message for message in rig.cloud.committed if message.time_quality is not TimeQuality.UNCERTAIN]
    assert {message.lane for message in later} >= {Lane.EVENT, Lane.TELEMETRY}
    assert all(abs(message.occurred_at - now_ms) < NEAR_MS for message in later)
    assert all(abs(reading["at"] - now_ms) < NEAR_MS for reading in rig.cloud.readings())
    by_lane = stamps(rig.cloud, Lane.EVENT)
    assert by_lane == sorted(by_lane)
    assert [message.time_quality for message in rig.cloud.committed if message.lane is Lane.EVENT] == [
        TimeQuality.CORRECTED, TimeQuality.CORRECTED, TimeQuality.EXACT,
    ]  # fmt: skip


async def test_starts_that_were_never_welcomed_lie_between_known_times_and_are_uncertain(tmp_path):
    first = box(tmp_path)
    async with first.running():
        await say(first, f"O {'1' * 32}")
        await eventually(lambda: first.cloud.event_ids(Lane.EVENT))
    known_ms = stamps(first.cloud, Lane.EVENT)[0]
    for number, years in (("2", 4.0), ("3", -25.0), ("4", -25.0)):  # its clock begins anew with every start
        offline = box(tmp_path, first.cloud, years=years, up=False)
        async with offline.running(connected=False):
            await say(offline, f"O {number * 32}", f"R {number}.0", f"O {'abc'[int(number) - 2] * 32}")
            await readings_kept(offline, 1)
    last = box(tmp_path, first.cloud, years=-25.0, up=False)
    async with last.running(connected=False):
        await say(last, f"O {'5' * 32}")
        last.link.up = True
        await eventually(lambda: len(first.cloud.event_ids(Lane.EVENT)) == 8 and len(first.cloud.readings()) == 3)
    now_ms = first.cloud.clock.now_ms()
    assert [one[0] for one in first.cloud.event_ids(Lane.EVENT)] == list("12a3b4c5"), "never reordered"
    told = [message for message in first.cloud.committed if message.lane is Lane.EVENT]
    assert [message.occurred_at for message in told] == sorted(message.occurred_at for message in told)
    assert all(known_ms <= message.occurred_at <= now_ms for message in told)
    assert [message.time_quality for message in told] == [
        TimeQuality.EXACT, *[TimeQuality.UNCERTAIN] * 6, TimeQuality.CORRECTED,
    ]  # fmt: skip
    ends_and_begins = [(told[number].occurred_at, told[number + 1].occurred_at) for number in (2, 4)]
    assert all(end < begin for end, begin in ends_and_begins), "a start begins after the one before it has ended"
    ats = [reading["at"] for reading in first.cloud.readings()]
    assert ats == sorted(ats)
    assert all(known_ms <= at <= now_ms for at in ats)


async def test_a_box_with_a_battery_clock_is_not_suspected(tmp_path):
    first = box(tmp_path)
    async with first.running():
        await say(first, f"O {'1' * 32}")
        await eventually(lambda: first.cloud.event_ids(Lane.EVENT))
    offline = box(tmp_path, first.cloud, up=False)
    async with offline.running(connected=False):
        await say(offline, f"O {'2' * 32}", "R 2.0")
        await readings_kept(offline, 1)
    async with box(tmp_path, first.cloud).running():
        await eventually(lambda: len(first.cloud.event_ids(Lane.EVENT)) == 2 and first.cloud.readings())
    assert qualities(first.cloud) == {TimeQuality.EXACT}


async def test_a_disk_that_takes_no_correction_keeps_nothing_from_being_corrected(tmp_path):
    rig = box(tmp_path, years=-20.0, up=False)
    async with rig.running(connected=False):
        await say(rig, f"O {'1' * 32}")
        store = rig.host._journal.store

        def full(*_):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        store.settle_boots = full
        rig.link.up = True
        await eventually(lambda: rig.cloud.event_ids(Lane.EVENT))
    assert abs(stamps(rig.cloud, Lane.EVENT)[0] - rig.cloud.clock.now_ms()) < NEAR_MS
    again = box(tmp_path, rig.cloud, years=-20.0)
    async with again.running():
        await say(again, f"O {'2' * 32}")
        await eventually(lambda: len(rig.cloud.event_ids(Lane.EVENT)) == 2)
    assert set(rig.cloud.generations) == {DEVICE}


async def test_nothing_leaves_with_stamps_that_nobody_could_read(tmp_path):
    offline = box(tmp_path, years=-20.0, up=False)
    async with offline.running(connected=False):
        await say(offline, f"O {'1' * 32}", "R 1.0")
        await readings_kept(offline, 1)
    rig = box(tmp_path, years=-20.0, up=False)
    now_ms = rig.cloud.clock.now_ms()
    async with rig.running(connected=False):
        store = rig.host._journal.store
        read, failures = store.boot_clocks, []

        def failing(device_id):
            if len(failures) < 3:
                failures.append(device_id)
                raise JournalError("disk I/O error")
            return read(device_id)

        store.boot_clocks = failing
        rig.link.up = True
        await eventually(lambda: rig.cloud.event_ids(Lane.EVENT) and rig.cloud.readings())
        assert len(failures) == 3
        assert rig.agent.uplink.counts["clocks_unsettled"] == 3
    assert all(abs(message.occurred_at - now_ms) < NEAR_MS for message in rig.cloud.committed)
    assert all(abs(reading["at"] - now_ms) < NEAR_MS for reading in rig.cloud.readings())


async def test_stamps_from_a_damaged_journal_are_not_taken_for_those_of_a_later_start(tmp_path):
    for number in range(1, 4):  # the third start has the number 3
        offline = box(tmp_path, years=-20.0, up=False)
        async with offline.running(connected=False):
            await say(offline, f"O {str(number) * 32}", f"R {number}.0")
            await readings_kept(offline, 1)
    path, aside = tmp_path / "journal.sqlite", tmp_path / "journal.sqlite.damaged-1"
    path.rename(aside)
    with closing(sqlite3.connect(aside)) as journal:
        journal.execute("DELETE FROM device")  # the page with ids and numbers cannot be read
        journal.commit()
    store = JournalStore(path, Bounds(), lambda: "e" * 32)
    store.begin()
    assert DamagedDatabase(aside).carry_into(store) == 6
    store.commit()
    store.close()
    rig = box(tmp_path, years=-20.0)
    now_ms = rig.cloud.clock.now_ms()
    async with rig.running():
        await say(rig, f"O {'4' * 32}")
        await eventually(lambda: len(rig.cloud.event_ids(Lane.EVENT)) == 4 and len(rig.cloud.readings()) == 3)
    told = [message for message in rig.cloud.committed if message.lane is Lane.EVENT]
    assert [message.time_quality for message in told] == [*[TimeQuality.UNCERTAIN] * 3, TimeQuality.EXACT]
    assert all(abs(message.occurred_at - now_ms) < NEAR_MS for message in rig.cloud.committed)
    assert all(abs(reading["at"] - now_ms) < NEAR_MS for reading in rig.cloud.readings())
