"""What the simulation stands on: virtual time, disks that forget, a broker that takes over and publishes wills."""

import asyncio
import errno
import os
import random

import pytest

from cli.guard import start_of
from cli.simulate.broker import Broker, DeviceLink
from cli.simulate.disk import Disk, WatchedOs
from cli.simulate.ingester_link import IngesterLink
from cli.simulate.loop import OrderedTaskGroup, StuckError, VirtualLoop
from cli.simulate.simulation import _own_folder
from cli.simulate.trace import Trace
from cli.simulate.weather import Weather
from edge.link import LinkError
from fleet.envelope import Status, decode_status
from fleet.topics import SHARD_COUNT, UpChannel


def run_virtually(work, delays=None):
    loop = VirtualLoop(delays)
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.close()


def test_time_moves_to_the_next_timer_and_no_further():
    seen = []

    async def work():
        async with asyncio.TaskGroup() as group:
            for seconds in (3600.0, 0.25, 86_400.0):
                group.create_task(note(seconds))

    async def note(seconds):
        await asyncio.sleep(seconds)
        seen.append((seconds, asyncio.get_running_loop().time()))

    _, ended_s = run_virtually(work())
    assert seen == [(0.25, 0.25), (3600.0, 3600.0), (86_400.0, 86_400.0)]
    assert ended_s == 86_400.0


def test_waiting_for_nothing_is_told_instead_of_hanging():
    async def work():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(StuckError):
        run_virtually(work())


def test_running_in_circles_without_time_is_told():
    async def work():
        while True:  # noqa: ASYNC110  # the mistake that is meant
            await asyncio.sleep(0)

    with pytest.raises(StuckError):
        run_virtually(work())


def test_work_of_one_thread_keeps_its_order_and_takes_time():
    done = []

    async def work():
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, done.append, number) for number in range(50)))

    _, ended_s = run_virtually(work(), random.Random(3))
    assert done == list(range(50))
    assert 0 < ended_s < 60


def test_a_group_cancels_in_the_order_of_its_tasks():
    ended = []

    async def wait(number):
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(number)

    async def work():
        async with OrderedTaskGroup() as group:
            for number in range(100):
                group.create_task(wait(number))
            await asyncio.sleep(1)
            raise ValueError("enough")

    with pytest.raises(ExceptionGroup):
        run_virtually(work())
    assert ended == list(range(100))


def test_a_crash_loses_what_was_not_synced(tmp_path):
    watched = WatchedOs()
    disk = Disk(tmp_path, "box", random.Random(1))
    watched.disks.append(disk)
    path = disk.folder / "log"
    file = watched.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    watched.write(file, b"durable")
    watched.fdatasync(file)
    watched.write(file, b"-not-yet" * 100)
    disk.crash(watched)
    left = (disk.folder / "log").read_bytes()
    assert left.startswith(b"durable")
    assert len(left) < len(b"durable" + b"-not-yet" * 100)
    assert path.read_bytes().endswith(b"-not-yet"), "the dead process keeps its own folder"


def test_a_write_in_place_is_taken_back_unless_it_was_synced(tmp_path):
    watched = WatchedOs()
    disk = Disk(tmp_path, "box", random.Random(1))
    file = watched.open(disk.folder / "reserve", os.O_RDWR | os.O_CREAT)
    watched.pwrite(file, bytes(1000), 0)
    watched.fdatasync(file)
    watched.pwrite(file, b"x" * 1000, 0)
    disk.crash(watched)
    left = (disk.folder / "reserve").read_bytes()
    assert left == b"x" * left.count(b"x") + bytes(1000 - left.count(b"x"))
    assert left.count(b"x") < 1000


def test_a_full_disk_takes_nothing_new_but_what_lies_within_a_file(tmp_path):
    watched = WatchedOs()
    disk = Disk(tmp_path, "box", random.Random(1))
    watched.disks.append(disk)
    file = watched.open(disk.folder / "reserve", os.O_RDWR | os.O_CREAT)
    watched.pwrite(file, bytes(100), 0)
    disk.full = True
    watched.pwrite(file, b"y" * 100, 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        watched.pwrite(file, b"y" * 100, 50)


class Rig:
    def __init__(self, loop):
        self.trace = Trace(loop.time)
        self.weather = Weather(random.Random(1))
        self.broker = Broker(loop, self.weather, self.trace)
        self.ingester = IngesterLink(self.broker, self.trace, linger_s=0.0, batch_messages_max=100)
        self.link = DeviceLink(self.broker, "bike-001")

    def taken(self):
        return [(message.topic.rpartition("/")[2], message.payload) for message in self.ingester.take(100)]


def on_rig(scene):
    async def work():
        rig = Rig(asyncio.get_running_loop())
        listening = asyncio.get_running_loop().create_task(rig.ingester.run(lambda: None, range(SHARD_COUNT)))
        await asyncio.sleep(1.0)
        await scene(rig)
        listening.cancel()

    run_virtually(work())


def will(connection):
    return Status("bike-001", 1 << 20, connection, False)


def test_a_second_connection_takes_the_session_over_and_the_first_ones_will_is_told():
    async def scene(rig):
        async with rig.link.connect(will(1), 60) as first:
            await first.publish(UpChannel.EVENT, b"one")
            async with rig.link.connect(will(2), 60) as second:
                with pytest.raises(LinkError):
                    await first.publish(UpChannel.EVENT, b"lost")
                await second.publish(UpChannel.EVENT, b"two")
                (_, one), (_, last_will), (_, two) = rig.taken()
                assert (one, decode_status(last_will), two) == (b"one", will(1), b"two")
        assert rig.taken() == [], "a goodbye has no will"

    on_rig(scene)


def test_a_dead_connection_is_noticed_by_keep_alive_on_both_sides():
    async def scene(rig):
        session = await rig.link.connect(will(1), 60).__aenter__()
        rig.broker.cut("bike-001")
        await asyncio.sleep(59.0)
        assert session.open_here
        assert "bike-001" in rig.broker.sessions
        await asyncio.sleep(32.0)
        assert not session.open_here
        assert [decode_status(data) for _, data in rig.taken()] == [will(1)]

    on_rig(scene)


def test_a_killed_broker_forgets_what_nobody_had_taken():
    async def scene(rig):
        session = await rig.link.connect(will(1), 60).__aenter__()
        await session.publish(UpChannel.EVENT, b"gone")
        rig.broker.kill()
        assert not rig.ingester.connected
        assert not session.open_here
        rig.broker.start()
        await asyncio.sleep(1.0)
        assert rig.ingester.connected
        assert rig.taken() == []

    on_rig(scene)


def test_folders_of_runs_that_were_killed_go_and_those_of_living_ones_stay(tmp_path):
    mine = f"fleet-simulate-{os.getpid()}-{start_of(os.getpid())}-abc"
    names = ["fleet-simulate-1-1-dead", f"fleet-simulate-{os.getpid()}-1-reused", mine, "fleet-simulate-unnamed", "x"]
    for name in names:
        (tmp_path / name / "room-001").mkdir(parents=True)
    made = _own_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine, "fleet-simulate-unnamed", "x", made.name}
    assert _own_folder(tmp_path).parent == made.parent
    assert made.is_dir()
