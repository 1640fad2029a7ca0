"""The journal: durable before acknowledged, bounded, and stubborn about emergencies."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.journal import Journal
from edge.records import Admission, Bounds, CommandRecord, JournalCorruptError, JournalError, JournalFullError
from edge.reserve import Reserve, ReservedRow
from fleet.envelope import Lane
from fleet.messages import ReplyStatus
from tests.edge_support import eventually

DEVICE = "bell-001"
TREE = Path(__file__).parent.parent.parent


@asynccontextmanager
async def opened(path, *devices, **options):
    journal = Journal(path, **options)
    journal.rows = []
    async with asyncio.TaskGroup() as group:
        running = group.create_task(journal.run())
        journal.records = {
            device_id: await journal.register(device_id, journal.rows.append) for device_id in devices or (DEVICE,)
        }
        yield journal
        journal.close()
        await running
    journal.shut()


async def everything(journal, lane, device_id=DEVICE):
    return await journal.pending(device_id, lane, 0, 10_000)


def seqs(rows):
    return [row.seq for row in rows]


CHILD = """
import asyncio, sys
from pathlib import Path
from edge.journal import Journal
from fleet.envelope import Lane

async def main():
    journal = Journal(Path(sys.argv[1]))
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.run())
        await journal.register("bell-001", lambda row: None)
        for number in range(10**9):
            lane = (Lane.EMERGENCY, Lane.EVENT)[number % 2]
            await journal.append("bell-001", lane, number, b"{}", f"{number:032x}")
            print(lane.value, number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kill_after", [1, 40, 117])
async def test_a_kill_in_mid_append_loses_nothing_that_was_acknowledged(tmp_path, kill_after):
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen(  # noqa: ASYNC220  # nothing else runs meanwhile
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=TREE, text=True
    ) as child:
        acknowledged = [child.stdout.readline().split() for _ in range(kill_after)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [line.split() for line in child.stdout.read().splitlines()]
    async with opened(path) as journal:
        kept = {(row.lane.value, row.occurred_at) for lane in Lane for row in await everything(journal, lane)}
        assert {(lane, int(number)) for lane, number in acknowledged} <= kept
        assert journal.records[DEVICE].boots == 1
        for lane in (Lane.EMERGENCY, Lane.EVENT):
            rows = await everything(journal, lane)
            assert seqs(rows) == list(range(1, len(rows) + 1))


async def test_many_devices_share_a_commit_and_an_emergency_waits_for_nobody(tmp_path):
    names = [f"bell-{number:03}" for number in range(100)]
    async with opened(tmp_path / "j", *names) as journal:
        before = journal.commits
        await asyncio.gather(*(journal.append(name, Lane.EVENT, 1, b"{}") for name in names))
        assert journal.commits - before <= 2
        telemetry = journal.append(names[0], Lane.TELEMETRY, 1, b"{}")
        assert await journal.append(names[1], Lane.EMERGENCY, 1, b"{}")
        await asyncio.sleep(0)
        assert telemetry.done(), "the emergency's commit took along what was waiting"


async def test_seqs_run_on_over_restarts_and_acknowledgements(tmp_path):
    for boot in range(3):
        async with opened(tmp_path / "j") as journal:
            row = await journal.append(DEVICE, Lane.EVENT, 1, b"{}")
            assert (row.seq, row.boots) == (boot + 1, boot)
            journal.acknowledge(DEVICE, {Lane.EVENT: row.seq})
    async with opened(tmp_path / "j") as journal:
        assert await everything(journal, Lane.EVENT) == []
        assert journal.records[DEVICE].marks[Lane.EVENT] == 3


async def test_what_the_hardware_repeats_is_journalled_once_even_after_acknowledgement_and_restart(tmp_path):
    async with opened(tmp_path / "j") as journal:
        assert await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", "a" * 32)
        assert await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", "a" * 32) is None
        journal.acknowledge(DEVICE, {Lane.EMERGENCY: 1})
    async with opened(tmp_path / "j", DEVICE, "bell-002") as journal:
        assert await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", "a" * 32) is None
        assert await journal.append("bell-002", Lane.EMERGENCY, 1, b"{}", "a" * 32) is not None


async def test_only_recent_event_ids_are_remembered(tmp_path):
    async with opened(tmp_path / "j", bounds=Bounds(event_ids_max=10)) as journal:
        for number in range(300):
            await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", f"{number:032x}")
        count = await journal.read(
            lambda store: store._connection.execute("SELECT count(*) FROM event_seen").fetchone()
        )
        assert count[0] < 10 + 128 + 1
        assert await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", f"{299:032x}") is None


async def test_telemetry_is_evicted_first_then_events_never_emergencies(tmp_path):
    async with opened(tmp_path / "j", bounds=Bounds(rows_max=10)) as journal:
        for lane in (Lane.EMERGENCY, Lane.EVENT, Lane.TELEMETRY):
            for _ in range(6):
                await journal.append(DEVICE, lane, 1, b"{}")
        assert seqs(await everything(journal, Lane.TELEMETRY)) == [3, 4, 5, 6]
        assert seqs(await everything(journal, Lane.EVENT)) == [1, 2, 3, 4, 5, 6]
        for _ in range(8):
            await journal.append(DEVICE, Lane.EVENT, 1, b"{}")
        assert seqs(await everything(journal, Lane.TELEMETRY)) == []
        assert seqs(await everything(journal, Lane.EVENT)) == list(range(5, 15))
        assert seqs(await everything(journal, Lane.EMERGENCY)) == [1, 2, 3, 4, 5, 6]
        counts = (await journal.read(lambda store: store.counts()))[DEVICE]
        assert counts == {Lane.EMERGENCY: (6, 0), Lane.EVENT: (10, 4), Lane.TELEMETRY: (0, 6)}


async def test_the_bound_in_bytes_holds(tmp_path):
    async with opened(tmp_path / "j", bounds=Bounds(bytes_max=1000)) as journal:
        for _ in range(30):
            await journal.append(DEVICE, Lane.TELEMETRY, 1, bytes(100))
        assert len(await everything(journal, Lane.TELEMETRY)) == 10


async def test_a_grant_renumbers_behind_the_mark_and_keeps_holes(tmp_path):
    async with opened(tmp_path / "j") as journal:
        for _ in range(5):
            await journal.append(DEVICE, Lane.EVENT, 1, b"{}")
        journal.acknowledge(DEVICE, {Lane.EVENT: 1})
        await journal.set_aside(DEVICE, Lane.EVENT, 3, "test", remove=True)
        await journal.grant(DEVICE, 1, {Lane.EVENT: 1})
        await journal.grant(DEVICE, 7, {Lane.EVENT: 2})
        assert seqs(await everything(journal, Lane.EVENT)) == [3, 5, 6]
        assert (await journal.append(DEVICE, Lane.EVENT, 1, b"{}")).seq == 7
        assert (await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}")).seq == 1
    async with opened(tmp_path / "j") as journal:
        assert journal.records[DEVICE].generation == 7


def fill_disk(journal):
    (pages,) = journal.store._connection.execute("PRAGMA page_count").fetchone()
    journal.store.limit_pages(pages)


async def exhaust(journal):
    """Use up the free space inside the pages; returns how many events were taken."""
    for taken in range(1_000):
        try:
            await journal.append(DEVICE, Lane.EVENT, 1, bytes(1000))
        except JournalFullError:
            return taken
    raise AssertionError("the disk never filled up")


async def test_on_a_full_disk_emergencies_go_to_the_reserve_and_return(tmp_path):
    async with opened(tmp_path / "j") as journal:
        fill_disk(journal)
        events = await exhaust(journal)
        big = bytes(2000)
        for number in (1, 2):
            row = await journal.append(DEVICE, Lane.EMERGENCY, 1, big, str(number) * 32)
            assert row.seq == number
        assert await journal.append(DEVICE, Lane.EMERGENCY, 1, big, "2" * 32) is None, "repeated by the hardware"
        assert len(journal.reserved_rows) == 2
        assert seqs(await everything(journal, Lane.EMERGENCY)) == [1, 2], "they are sent from the reserve"
        assert seqs(row for row in journal.rows if row.lane is Lane.EMERGENCY) == [1, 2]
        with pytest.raises(JournalFullError):
            await journal.append(DEVICE, Lane.EVENT, 1, bytes(1000))
        journal.store.limit_pages(100_000)
        assert (await journal.append(DEVICE, Lane.EVENT, 1, b"{}")).seq == events + 1, "a refusal takes no seq"
        assert journal.reserved_rows == []
        assert (await journal.append(DEVICE, Lane.EMERGENCY, 1, big, "3" * 32)).seq == 3
        assert seqs(await everything(journal, Lane.EMERGENCY)) == [1, 2, 3]


async def test_the_reserve_is_merged_after_a_restart_and_twice_changes_nothing(tmp_path):
    path = tmp_path / "j"
    async with opened(path) as journal:
        fill_disk(journal)
        await exhaust(journal)
        await journal.append(DEVICE, Lane.EMERGENCY, 1, bytes(2000), "1" * 32)
        kept = path.with_name("j.reserve").read_bytes()
    for _ in range(2):
        async with opened(path) as journal:
            assert journal.reserved_rows == []
            assert seqs(await everything(journal, Lane.EMERGENCY)) == [1]
        path.with_name("j.reserve").write_bytes(kept)  # as after a crash between the merge and the clearing


async def test_telemetry_gives_its_room_back_when_the_disk_is_full(tmp_path):
    async with opened(tmp_path / "j") as journal:
        await asyncio.gather(*(journal.append(DEVICE, Lane.TELEMETRY, 1, bytes(1000)) for _ in range(300)))
        fill_disk(journal)
        for _ in range(100):
            await journal.append(DEVICE, Lane.EVENT, 1, bytes(1000))
        assert len(await everything(journal, Lane.TELEMETRY)) < 300
        assert len(await everything(journal, Lane.EVENT)) == 100


async def test_a_torn_record_ends_the_reserve(tmp_path):
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    for number in (1, 2):
        reserve.append(ReservedRow(DEVICE, "s", Lane.EMERGENCY, number, 0, 1, b"{}", None))
    reserve.close()
    content = bytearray(path.read_bytes())
    content[content.index(b'"seq":2') + 6] = ord("7")
    path.write_bytes(content)
    assert [row.seq for row in Reserve(path).rows] == [1]
    small = Reserve(tmp_path / "small", size=64)
    with pytest.raises(JournalFullError):
        small.append(ReservedRow(DEVICE, "s", Lane.EMERGENCY, 1, 0, 1, bytes(64), None))


@pytest.mark.parametrize("damage", ["header", "middle", "garbage"])
async def test_a_damaged_database_is_set_aside_and_what_is_readable_goes_on(tmp_path, damage):
    path = tmp_path / "j"
    async with opened(path) as journal:
        for number in range(200):
            await journal.append(DEVICE, Lane.EMERGENCY, number, b'{"n":%d}' % number, f"{number:032x}")
        storage_id = journal.records[DEVICE].storage_id
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = bytes(100)
    elif damage == "middle":
        page = content.index(b'{"n":100}') // 4096 * 4096
        content[page : page + 4096] = b"\xa5" * 4096
    else:
        content = bytearray(b"no database at all" * 1000)
    path.write_bytes(content)
    async with opened(path) as journal:
        assert journal.records[DEVICE].storage_id != storage_id
        assert journal.records[DEVICE].generation == 0
        carried = await everything(journal, Lane.EMERGENCY)
        assert seqs(carried) == list(range(1, len(carried) + 1))
        assert await journal.append(DEVICE, Lane.EVENT, 1, b"{}")
        if damage == "middle":
            assert 100 < len(carried) < 200, "one page of many was damaged"
            assert {carried[0].occurred_at, carried[-1].occurred_at} == {0, 199}
            assert await journal.append(DEVICE, Lane.EMERGENCY, 1, b"{}", carried[0].event_id) is None
    assert (tmp_path / "j.damaged-1").exists()


async def test_two_agents_cannot_share_a_journal(tmp_path):
    async with opened(tmp_path / "j"):
        with pytest.raises(JournalError, match="another agent"):
            Journal(tmp_path / "j")


async def test_a_newer_journal_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "j") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="version 99"):
        Journal(tmp_path / "j")
    assert not (tmp_path / "j.damaged-1").exists()


async def test_a_command_id_is_remembered_once_with_its_outcome(tmp_path):
    seen = CommandRecord("c" * 32, ReplyStatus.ACCEPTED, "", 1, reply_acknowledged=False)
    ended = CommandRecord("c" * 32, ReplyStatus.FAILED, "jam", 2, reply_acknowledged=False)
    async with opened(tmp_path / "j") as journal:
        assert await journal.remember_command(DEVICE, seen, 1) is Admission.NEW
        assert await journal.remember_command(DEVICE, seen, 1) is Admission.SEEN
        await journal.conclude_command(DEVICE, ended)
    async with opened(tmp_path / "j") as journal:
        assert await journal.read(lambda store: store.open_commands(DEVICE)) == [ended]
        await journal.acknowledge_replies(DEVICE, [ended.command_id])
        assert await journal.read(lambda store: store.open_commands(DEVICE)) == []
        assert await journal.remember_command(DEVICE, seen, 1) is Admission.SEEN


async def test_what_waits_for_a_commit_fails_when_the_journal_ends_by_an_error(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.sqlite")
    begun, proceed = threading.Event(), threading.Event()

    def damaged(_operations, _marks):
        begun.set()
        assert proceed.wait(5.0)
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    async def in_the_failing_commit():
        await journal.register(DEVICE, lambda _row: None)
        monkeypatch.setattr(journal._writer, "commit", damaged)
        await journal.append(DEVICE, Lane.EVENT, 1, b"{}", "1" * 32)

    async def behind_it():
        await eventually(begun.is_set)
        asyncio.get_running_loop().call_soon(proceed.set)  # after the next line has queued its write
        await journal.append(DEVICE, Lane.EVENT, 2, b"{}", "2" * 32)

    async with asyncio.timeout(10.0):
        ended, first, second = await asyncio.gather(
            journal.run(), in_the_failing_commit(), behind_it(), return_exceptions=True
        )
        assert isinstance(ended, JournalCorruptError)
        assert isinstance(first, JournalFullError)
        assert isinstance(second, JournalFullError)
        with pytest.raises(JournalFullError, match="ended"):
            await journal.append(DEVICE, Lane.EMERGENCY, 3, b"{}", "3" * 32)
    journal.shut()
