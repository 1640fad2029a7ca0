"""The spool: what is synced survives kill -9, torn tails and damaged bytes; its bounds hold."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.timeseries import segments
from cloud.timeseries.position import PositionFile
from cloud.timeseries.spool import Spool, SpoolError, SpoolFullError

WRITER = """
import sys
from pathlib import Path
from cloud.timeseries.spool import Spool
spool = Spool(Path(sys.argv[1]), free_bytes_min=0, segment_bytes_max=20_000)
number = 0
while True:
    batch = [b"%d" % n + b"." * (n % 200) for n in range(number, number + 50)]
    spool.append(batch, list(range(number, number + 50)))
    number += 50
    if number % 150 == 0:  # some batches are appended and not synced when the kill comes
        spool.sync()
        print(number, flush=True)
"""


@pytest.fixture
def make(tmp_path):
    """Open the spool of this test (again), without asking the disk for free space."""
    opened = []

    def open_spool(**options):
        spool = Spool(tmp_path / "spool", **({"free_bytes_min": 0} | options))
        opened.append(spool)
        return spool

    yield open_spool
    for spool in opened:
        spool.close()


def commit(spool, *envelopes, at=1_800_000_000_000):
    spool.append(list(envelopes), [at] * len(envelopes))
    return spool.sync()


def everything(spool, position=0, bytes_max=1 << 20):
    envelopes, times = [], []
    while True:
        batch = spool.read(position, bytes_max)
        if batch.next_position == position:
            return envelopes, times
        envelopes += batch.envelopes
        times += batch.received_at_ms
        position = batch.next_position


@given(
    st.lists(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**53)), max_size=5), max_size=8),
    st.integers(1, 500),
    st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_what_is_appended_is_read_in_order(tmp_path_factory, batches, segment_bytes_max, read_bytes_max):
    spool = Spool(tmp_path_factory.mktemp("spool"), free_bytes_min=0, segment_bytes_max=segment_bytes_max)
    for batch in batches:
        spool.append([envelope for envelope, _ in batch], [at for _, at in batch])
    spool.sync()
    expected = [record for batch in batches for record in batch]
    envelopes, times = everything(spool, bytes_max=read_bytes_max)
    assert list(zip(envelopes, times, strict=True)) == expected
    spool.close()


def test_only_synced_batches_are_read(make):
    spool = make()
    commit(spool, b"one")
    spool.append([b"two"], [2])
    assert everything(spool)[0] == [b"one"]
    spool.sync()
    assert everything(spool)[0] == [b"one", b"two"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_in_mid_append_loses_nothing_that_was_synced(tmp_path, seed):
    folder = tmp_path / "spool"
    root = Path(__file__).parents[2]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, cwd=root)
    synced = 0
    for _ in range(random.Random(seed).randint(3, 60)):
        synced = int(writer.stdout.readline())
    writer.kill()
    synced = max([synced, *map(int, writer.stdout.read().split(b"\n")[:-1])])
    writer.wait()
    spool = Spool(folder, free_bytes_min=0, segment_bytes_max=20_000)
    envelopes, times = everything(spool)
    assert len(envelopes) >= synced
    assert times == list(range(len(times)))  # whole batches, in order, nothing twice
    assert [int(envelope.rstrip(b".")) for envelope in envelopes] == times
    commit(spool, b"after", at=7)
    assert everything(spool)[0][-1] == b"after"
    spool.close()


@pytest.mark.parametrize("cut", [1, 5, 15, 20, 30])
def test_a_torn_tail_is_cut_off_and_appending_goes_on(make, tmp_path, cut):
    spool = make()
    kept = commit(spool, b"kept")
    end = commit(spool, b"torn by a power cut")
    spool.close()
    (file,) = (tmp_path / "spool").glob("*.spool")
    os.truncate(file, end - cut)
    again = make()
    assert again.synced_position == kept
    assert again.statistics.torn_bytes == end - kept - cut
    commit(again, b"next")
    assert everything(again)[0] == [b"kept", b"next"]


def test_a_damaged_batch_is_skipped_and_counted_and_what_follows_is_kept(make, tmp_path):
    spool = make()
    first = commit(spool, b"first")
    second = commit(spool, b"second")
    commit(spool, b"third")
    spool.close()
    (file,) = (tmp_path / "spool").glob("*.spool")
    data = bytearray(file.read_bytes())
    data[second - 3] ^= 0x10
    file.write_bytes(data)
    again = make()
    assert again.statistics.torn_bytes == 0
    batch = again.read(0)
    assert batch.envelopes == [b"first", b"third"]
    assert batch.skipped_bytes == second - first


def test_no_envelopes_means_the_end_even_behind_damage_and_gaps(make, tmp_path):
    spool = make(segment_bytes_max=1)  # every batch has a segment of its own
    first = commit(spool, b"first")
    second = commit(spool, b"damaged")
    commit(spool, b"cut short")
    spool.append([], [])
    end = commit(spool, b"fourth")
    spool.close()
    damaged = segments.segment_path(tmp_path / "spool", first)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    segments.segment_path(tmp_path / "spool", second).write_bytes(b"")
    again = make(position_min=end + 500)
    commit(again, b"fifth")
    position, found, skipped_bytes = 0, [], 0
    while (batch := again.read(position, 1)).envelopes:
        found += batch.envelopes
        skipped_bytes += batch.skipped_bytes
        position = batch.next_position
    assert found == [b"first", b"fourth", b"fifth"]
    assert skipped_bytes == damaged.stat().st_size


@given(st.binary(max_size=200), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_noise_is_never_taken_for_a_batch(noise, count, rng):
    whole = b"".join(segments.encode_frame([b"%d" % number], [number]) for number in range(count))
    data = bytearray(whole + noise)
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    found = [segments.records_of(bytes(data), frame)[0][0] for frame in segments.frames(bytes(data))]
    assert set(found) <= {b"%d" % number for number in range(count)}
    assert len(found) >= count - 1


def test_segments_go_when_every_consumer_has_passed_them(make, tmp_path):
    spool = make(segment_bytes_max=100)
    ends = [commit(spool, bytes(100)) for _ in range(5)]

    def files():
        return len(list((tmp_path / "spool").glob("*.spool")))

    assert files() == 5
    spool.release("series", ends[3])
    assert files() == 5  # the twins may still need a replay
    spool.release("twin", ends[1])
    assert files() == 3
    assert spool.first_position == ends[1]
    spool.release("twin", ends[4])
    assert files() == 1
    assert len(spool.read(0).envelopes) == 1


def test_positions_go_on_after_a_restart_and_after_a_lost_spool(make, tmp_path):
    spool = make()
    end = commit(spool, b"one")
    spool.close()
    assert make().synced_position == end
    for file in (tmp_path / "spool").glob("*.spool"):
        file.unlink()
    lost = make(position_min=end)
    assert lost.read(0).envelopes == []
    assert commit(lost, b"two") > end
    assert everything(lost, end)[0] == [b"two"]


def test_a_spool_behind_its_consumers_goes_on_after_them(make):
    spool = make()
    end = commit(spool, b"one")
    spool.close()
    ahead = make(position_min=end + 1000)
    commit(ahead, b"two")
    assert everything(ahead)[0] == [b"one", b"two"]
    assert everything(ahead, end + 1000)[0] == [b"two"]


def test_at_the_bound_it_refuses_whole_batches_and_recovers(make):
    spool = make(bytes_max=1000, segment_bytes_max=300)
    ends = []
    while spool.used_bytes + 140 <= 1000:  # a batch takes 128 bytes
        ends.append(commit(spool, bytes(100)))
    with pytest.raises(SpoolFullError):
        commit(spool, bytes(100))
    assert spool.statistics.batches_refused == 1
    assert 0.8 < spool.fill_ratio <= 1
    assert len(everything(spool)[0]) == len(ends)
    for consumer in ("series", "twin"):
        spool.release(consumer, ends[-1])
    commit(spool, b"room again")


def test_it_leaves_space_for_the_state_beside_it(make):
    spool = make(free_bytes_min=1 << 60)
    with pytest.raises(SpoolFullError, match="free"):
        spool.append([b"x"], [1])


def test_a_failed_write_leaves_no_half_batch(make, monkeypatch):
    spool = make()
    commit(spool, b"one")
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]) if len(data) > 10 else fail())
    with pytest.raises(SpoolError, match="No space"):
        spool.append([b"two"], [2])
    monkeypatch.undo()
    commit(spool, b"three")
    assert everything(spool)[0] == [b"one", b"three"]
    assert make().read(0).envelopes == [b"one", b"three"]


def test_after_a_failed_sync_nothing_unsynced_counts(make, monkeypatch):
    spool = make()
    commit(spool, b"one")
    spool.append([b"two"], [2])
    monkeypatch.setattr(os, "fdatasync", lambda _: fail())
    with pytest.raises(SpoolError):
        spool.sync()
    monkeypatch.undo()
    assert everything(spool)[0] == [b"one"]
    commit(spool, b"three")
    assert everything(spool)[0] == [b"one", b"three"]
    assert everything(make())[0] == [b"one", b"three"]


def fail():
    raise OSError(28, "No space left on device")


async def test_a_position_survives_and_garbage_counts_as_zero(tmp_path):
    file = PositionFile(tmp_path / "series.position")
    assert await file.load() == 0
    await file.save(123_456_789_012)
    assert await PositionFile(tmp_path / "series.position").load() == 123_456_789_012
    (tmp_path / "series.position").write_text("")
    assert await file.load() == 0
