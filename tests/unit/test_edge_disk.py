"""Disks that are full, read-only or change bits: the agent goes on, loses nothing it acknowledged, and recovers."""

import errno
import os
import random
import shutil
import sqlite3

import pytest

from edge import opening, reserve
from edge.journal import Journal
from edge.reserve import Reserve, ReservedRow
from fleet.envelope import Lane
from tests.edge_support import DEVICE, Rig, doorbell_kind, eventually

PRESS = [f"{number:032x}" for number in range(1, 40)]


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


class SickDisk:
    """Refuses to open a database or a reserve, as a full or read-only disk does, until it is `well`."""

    def __init__(self, monkeypatch, code, *, reserve_too):
        self.well = False
        open_database, open_file = sqlite3.connect, os.open

        def connect(path, *rest, **options):
            if not self.well and str(path) != ":memory:":
                error = sqlite3.OperationalError("the disk is sick")
                error.sqlite_errorcode = code
                raise error
            return open_database(path, *rest, **options)

        def open_reserve(path, *rest, **options):
            if not self.well and reserve_too and str(path).endswith(".reserve"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return open_file(path, *rest, **options)

        monkeypatch.setattr(sqlite3, "connect", connect)
        monkeypatch.setattr(reserve.os, "open", open_reserve)
        monkeypatch.setattr("edge.journal._RETURN_S", 0.05)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY])
@pytest.mark.parametrize("reserve_too", [False, True])
async def test_a_disk_that_takes_no_database_at_the_start_ends_nothing(tmp_path, monkeypatch, code, reserve_too):
    disk = SickDisk(monkeypatch, code, reserve_too=reserve_too)
    rig = Rig(tmp_path)
    async with rig.running():
        rig.bell.say(f"P {PRESS[0]}")
        await eventually(lambda: rig.bell.heard(f"L {PRESS[0]}") and (reserve_too or rig.bell.heard(f"A {PRESS[0]}")))
        rig.bell.say(f"O {PRESS[1]}")
        statistics = await rig.host.statistics()
        assert statistics.journal_absent
        assert statistics.in_memory == int(reserve_too)
        if reserve_too:
            assert rig.bell.heard(f"A {PRESS[0]}") == 0, "only what is durable is acknowledged"
        assert rig.bell.heard(f"A {PRESS[1]}") == 0, "an event waits in the hardware"
        disk.well = True
        await eventually(lambda: not rig.host.journal.absent)
        await eventually(lambda: rig.agent.connected)
        rig.bell.say(f"P {PRESS[0]}")  # the hardware repeats what was never acknowledged
        rig.bell.say(f"O {PRESS[1]}")
        await eventually(lambda: rig.bell.heard(f"A {PRESS[0]}") >= 1 and rig.bell.heard(f"A {PRESS[1]}") >= 1)
        await eventually(lambda: rig.cloud.event_ids(Lane.EVENT) == [PRESS[1]])
        await eventually(lambda: not rig.agent.uplink.emergency_waiting.is_set())
    assert set(rig.cloud.event_ids(Lane.EMERGENCY) + rig.cloud.accepted_early) == {PRESS[0]}


async def test_a_known_device_keeps_its_storage_when_the_disk_is_well_again(tmp_path, monkeypatch):
    first = Rig(tmp_path)
    async with first.running():
        first.bell.say(f"P {PRESS[0]}")
        await eventually(lambda: first.bell.heard(f"L {PRESS[0]}"))
        storage_id = first.cloud.hellos[-1].storage_id
    disk = SickDisk(monkeypatch, sqlite3.SQLITE_READONLY, reserve_too=False)
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        second.bell.say(f"P {PRESS[1]}")
        await eventually(lambda: second.bell.heard(f"L {PRESS[1]}"))
        assert second.cloud.hellos[-1].storage_id != storage_id
        assert second.cloud.hellos[-1].temporary
        disk.well = True
        await eventually(lambda: second.cloud.hellos[-1].storage_id == storage_id)
        assert not second.cloud.hellos[-1].temporary
        second.bell.say(f"P {PRESS[2]}")
        await eventually(lambda: second.bell.heard(f"L {PRESS[2]}"))
    assert set(first.cloud.event_ids(Lane.EMERGENCY)) == set(PRESS[:3])


async def test_a_disk_that_turns_read_only_while_running_costs_no_press(tmp_path, monkeypatch):
    rig = Rig(tmp_path)
    async with rig.running():
        writes, store = reserve.os.pwrite, rig.host.journal.store
        begin = store.begin

        def refuse(*_):
            raise OSError(errno.EROFS, "Read-only file system")

        def refuse_transaction():
            error = sqlite3.OperationalError("attempt to write a readonly database")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY
            raise error

        monkeypatch.setattr(reserve.os, "pwrite", refuse)
        store.begin = refuse_transaction
        for press in PRESS[:3]:
            rig.bell.say(f"P {press}")
        await eventually(lambda: all(rig.bell.heard(f"L {press}") for press in PRESS[:3]))
        assert len(rig.host.journal.in_memory) == 3
        assert "A " not in rig.bell.told.decode()
        monkeypatch.setattr(reserve.os, "pwrite", writes)
        store.begin = begin
        for press in PRESS[:3]:
            rig.bell.say(f"P {press}")
        await eventually(lambda: all(rig.bell.heard(f"A {press}") for press in PRESS[:3]))
        assert rig.host.journal.in_memory == ()
    assert rig.cloud.event_ids(Lane.EMERGENCY) == PRESS[:3]


def test_a_folder_that_is_not_ours_is_for_people(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(opening.Path, "touch", refuse)
    with pytest.raises(opening.JournalError, match="let it be writable"):
        Journal(tmp_path / "j")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_on_a_truly_full_disk_presses_go_out_and_everything_recovers(tmp_path):
    import subprocess

    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(  # noqa: ASYNC221  # returns at once
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")
    try:
        (folder / "filler").write_bytes(bytes(1_048_576))
        rig = Rig(folder)
        async with rig.running():
            assert rig.host.journal.absent
            rig.bell.say(f"P {PRESS[0]}")
            await eventually(lambda: rig.bell.heard(f"L {PRESS[0]}"))
            (folder / "filler").unlink()
            await eventually(lambda: not rig.host.journal.absent, within_s=15)
            await eventually(lambda: rig.agent.connected)
            rig.bell.say(f"P {PRESS[0]}")
            rig.bell.say(f"O {PRESS[1]}")
            await eventually(lambda: rig.bell.heard(f"A {PRESS[0]}") and rig.bell.heard(f"A {PRESS[1]}"))
        assert set(rig.cloud.event_ids(Lane.EMERGENCY)) == {PRESS[0]}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: ASYNC221


# --- the reserve file ---------------------------------------------------------------------------------------------


def kept(number):
    return ReservedRow(DEVICE, "s" * 32, Lane.EMERGENCY, number, 0, number, b'{"n":%d}' % number, PRESS[number])


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_reserve_gives_back_every_record_that_is_whole(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "reserve"
    file = Reserve(path, size=16_384)
    ends = []
    for number in range(20):
        file.append(kept(number))
        ends.append(file._end)
    file.close()
    content = bytearray(path.read_bytes())
    touched = set()
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(ends[-1])
        content[place] ^= 1 << rng.randrange(8)
        touched.add(next(number for number, end in enumerate(ends) if place < end))
    if seed % 4 == 3:
        cut = rng.randrange(ends[-1])
        content = content[:cut]
        touched |= {number for number, end in enumerate(ends) if end > cut}
    path.write_bytes(content)
    again = Reserve(path, size=16_384)
    found = {row.seq for row in again.rows}
    assert found >= set(range(20)) - touched
    assert all(row == kept(row.seq) for row in again.rows), "nothing that was altered passes for whole"
    assert again.skipped >= bool(set(range(20)) - found - {19})
    again.append(kept(30))
    again.close()
    assert 30 in {row.seq for row in Reserve(path, size=16_384).rows}


# --- the database -------------------------------------------------------------------------------------------------


def _damage(rng, folder):
    """Damage a copy of a journal; returns what was done."""
    database, log = folder / "journal.sqlite", folder / "journal.sqlite-wal"
    targets = [path for path in (database, log) if path.exists() and path.stat().st_size]
    target = rng.choice(targets)
    content = bytearray(target.read_bytes())
    what = rng.choice(["flip", "zero_page", "truncate", "garbage", "no_log", "no_index", "swap"])
    if what == "flip":
        for _ in range(rng.randint(1, 64)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif what == "zero_page":
        page = rng.randrange(max(1, len(content) // 4096)) * 4096
        content[page : page + 4096] = bytes(len(content[page : page + 4096]))
    elif what == "truncate":
        del content[rng.randrange(len(content)) :]
    elif what == "garbage":
        place = rng.randrange(len(content))
        content[place : place + 4096] = rng.randbytes(len(content[place : place + 4096]))
    elif what == "swap" and len(content) > 3 * 4096:
        content[4096:8192], content[8192:12288] = content[8192:12288], content[4096:8192]
    target.write_bytes(content)
    if what == "no_log":
        log.unlink(missing_ok=True)
    if what == "no_index":
        folder.joinpath("journal.sqlite-shm").unlink(missing_ok=True)
    return what


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Copies of a journal's files at moments of a load of writes, as a power cut would leave them."""
    import asyncio

    source, copies = tmp_path_factory.mktemp("source"), []

    async def load():
        journal = Journal(source / "journal.sqlite")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(journal.run())
            await journal.register(DEVICE, lambda _: None)
            await journal.grant(DEVICE, 1, {})
            durable = set()
            for number in range(240):
                lane = (Lane.EMERGENCY, Lane.EVENT, Lane.TELEMETRY)[number % 3]
                event_id = None if lane is Lane.TELEMETRY else f"{number:032x}"
                rows = [journal.append(DEVICE, lane, number, b'{"n":%d}' % number + bytes(400), event_id)]
                await asyncio.gather(*rows)
                durable.add((lane, number))
                if number % 40 == 20:
                    journal.acknowledge(DEVICE, {Lane.EVENT: number // 9})
                if number % 8 == 7:
                    target = tmp_path_factory.mktemp("copy")
                    for file in source.iterdir():
                        shutil.copy(file, target / file.name)
                    copies.append((target, frozenset(durable)))
            journal.close()
            await running
        journal.shut()

    journal_telemetry_at_once = pytest.MonkeyPatch()
    journal_telemetry_at_once.setattr("edge.journal.COMMIT_WITHIN_S", dict.fromkeys(Lane, 0.0))
    asyncio.run(load())
    journal_telemetry_at_once.undo()
    return copies


async def _found(folder):
    """What a journal opened on these files still has to send, by lane and moment."""
    import asyncio

    journal = Journal(folder / "journal.sqlite")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(journal.run())
        record = await journal.register(DEVICE, lambda _: None)
        found = {lane: await journal.pending(DEVICE, lane, 0, 10_000) for lane in Lane}
        for lane in Lane:
            seqs = [row.seq for row in found[lane]]
            assert seqs == sorted(set(seqs)), "in order, no number twice"
        assert await journal.append(DEVICE, Lane.EMERGENCY, 999, b"{}", "f" * 32), "it takes what comes next"
        journal.close()
        await running
    journal.shut()
    return record, found


async def test_a_power_cut_at_any_moment_loses_nothing_durable(copies, tmp_path):
    for number, (source, durable) in enumerate(copies):
        folder = tmp_path / str(number)
        shutil.copytree(source, folder)
        record, found = await _found(folder)
        pending = {(lane, row.occurred_at) for lane in Lane for row in found[lane]}
        event_mark = record.marks[Lane.EVENT]
        missing = {item for item in durable - pending if item[0] is not Lane.EVENT or item[1] // 3 + 1 > event_mark}
        assert not missing
        assert not list(folder.glob("*.damaged-*"))


async def test_no_damage_is_fatal_and_what_is_readable_goes_on(copies, tmp_path):
    kinds_of_damage, carried, salvaged = set(), 0, 0
    for seed in range(60):
        rng = random.Random(seed)
        source, durable = rng.choice(copies[5:])
        folder = tmp_path / str(seed)
        shutil.copytree(source, folder)
        kinds_of_damage.add(_damage(rng, folder))
        record, found = await _found(folder)
        rows = [(lane, row.occurred_at) for lane in Lane for row in found[lane] if row.occurred_at != 999]
        carried += len(set(rows) & durable)
        if list(folder.glob("*.damaged-*")):
            salvaged += 1
            assert record.ends or record.generation == 0, "another storage follows"
    assert len(kinds_of_damage) == 7
    assert salvaged >= 5, "some damage was found and set aside"
    assert carried > 60 * 40, "most of it is still there"


async def test_readings_that_wait_for_the_network_are_durable_and_arrive_after_a_power_cut(tmp_path):
    """The files are copied while the agent runs, as a power cut would leave them."""
    folder = tmp_path / "before"
    folder.mkdir()
    rig = Rig(folder)
    rig.link.up = False
    async with rig.running(connected=False):
        for number in range(5):
            rig.bell.say(f"R {number}.5")
        await eventually(lambda: len(rig.host.journal.store.kept_readings(DEVICE)) == 5)
        assert rig.host.journal.journalled == 0, "no message yet"
        shutil.copytree(folder, tmp_path / "after")
    second = Rig(tmp_path / "after", cloud=rig.cloud)
    async with second.running():
        await eventually(lambda: len(second.cloud.readings()) == 5)
    assert [reading["temperature_celsius"] for reading in rig.cloud.readings()] == [0.5, 1.5, 2.5, 3.5, 4.5]


@pytest.mark.parametrize("connected", [False, True])
async def test_an_orderly_stop_in_the_middle_of_a_write_keeps_every_reading_once(tmp_path, connected):
    rig = Rig(tmp_path)
    rig.link.up = connected
    async with rig.running(connected=connected):
        await eventually(lambda: not connected or rig.agent.uplink.telemetry_flows)
        rig.bell.say("R 1.5")
        await eventually(lambda: rig.agent._telemetry.waiting == 1)  # the journal has not committed it yet
        assert rig.agent._telemetry._writing is not None
    second = Rig(tmp_path, cloud=rig.cloud)
    async with second.running():
        second.bell.say("R 2.5")
        await eventually(
            lambda: len(rig.cloud.readings()) >= 2 and rig.cloud.readings()[-1]["temperature_celsius"] == 2.5
        )
    assert [reading["temperature_celsius"] for reading in rig.cloud.readings()] == [1.5, 2.5]
