"""The drain after an outage, and where bodies are too large or points too old: nothing lost, nothing starved."""

import asyncio

import pytest
from drain_bench import Bench, ScriptedStore, influx_bench, record
from influx_fixture import TOKEN

from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.series_influx import InfluxSeries
from cloud.ports import SeriesError, SeriesTooLargeError
from cloud.timeseries.drain import DrainState


class OrderedStore(ScriptedStore):
    """Keeps the order in which points came; `on_write` may bring more."""

    def __init__(self, on_write=None):
        super().__init__()
        self.order, self.on_write, self.sizes = [], on_write, []

    async def write(self, points):
        await super().write(points)
        self.order += [(point.device_id, point.fields["message_seq"]) for point in points]
        self.sizes.append(len(points))
        if self.on_write is not None:
            self.on_write()


def backlog_bench(folder, on_write=None):
    store = OrderedStore(on_write)
    return Bench(folder, store, batch_bytes_max=4000, backlog_bytes_min=40_000, bodies_per_step=2), store


async def test_live_data_does_not_wait_behind_a_backlog_and_each_series_keeps_its_order(tmp_path):
    live_seq = 1

    def more():
        nonlocal live_seq
        if live_seq <= 10:
            bench.put([record(live_seq, device="room-002")])
            live_seq += 1

    bench, store = backlog_bench(tmp_path, more)
    for start in range(1, 601, 5):
        bench.put([record(seq) for seq in range(start, start + 5)])
    await bench.drain.catch_up()
    while bench.drain.lag_bytes:
        await bench.drain.step()
    live = [number for number, (device, _) in enumerate(store.order) if device == "room-002"]
    backlog_end = max(number for number, (device, _) in enumerate(store.order) if device == "room-001")
    assert len(live) == 20
    assert live[0] < 100
    assert live[-1] < backlog_end
    for device in ("room-001", "room-002"):
        seqs = [seq for one, seq in store.order if one == device]
        assert seqs == sorted(seqs)
    assert len(store.order) == len(store.points) == 1220  # and nothing was written twice


async def test_a_crash_beside_a_backlog_repeats_live_batches_and_loses_nothing(tmp_path):
    bench, store = backlog_bench(tmp_path)
    for start in range(1, 201, 10):
        bench.put([record(seq) for seq in range(start, start + 10)])
    await bench.drain.step()
    bench.put([record(seq, device="room-002") for seq in range(1, 11)])
    await bench.drain.step()
    assert bench.drain.live_lag_bytes == 0
    assert bench.drain.lag_bytes > 0
    assert ("room-002", 1) in store.order
    again = Bench(tmp_path, store, batch_bytes_max=4000, backlog_bytes_min=40_000)  # as after kill -9
    await again.drain.catch_up()
    assert len(store.points) == 420
    assert again.drain.lag_bytes == 0


async def test_bodies_are_bounded(tmp_path):
    store = OrderedStore()
    bench = Bench(tmp_path, store, lines_max=64)
    bench.put([record(seq) for seq in range(1, 101)])
    await bench.drain.catch_up()
    assert store.sizes == [50, 50, 50, 50]
    assert bench.drain.statistics.bodies == 4


async def test_a_body_too_large_is_halved_and_later_ones_are_smaller_at_once(tmp_path):
    sizes = []

    def refuse(points):
        sizes.append(len(points))
        if len(points) > 30:
            raise SeriesTooLargeError("HTTP 413: Request Entity Too Large", retry_after_s=None)

    store = ScriptedStore(refuse)
    bench = Bench(tmp_path, store)
    bench.put([record(seq) for seq in range(1, 51)])
    await bench.drain.catch_up()
    assert max(sizes) == 100
    sizes.clear()
    bench.put([record(seq) for seq in range(51, 101)])
    await bench.drain.catch_up()
    assert max(sizes) <= 30
    assert (len(store.points), bench.quarantined) == (200, [])


def too_old(points):
    """What InfluxDB says of points before 2020, having stored the others."""
    dropped = sum(point.at_ns < 1_577_836_800_000_000_000 for point in points)
    if dropped:
        reason = f"HTTP 400: partial write: points beyond retention policy dropped={dropped}"
        raise SeriesError(reason, retry_after_s=None)


async def test_a_store_whose_clock_is_wrong_is_not_believed_that_points_are_too_old(tmp_path):
    looks = [False, False, True]
    store = ScriptedStore(too_old)
    bench = Bench(tmp_path, store, store_clock_is_right=lambda: looks.pop(0) if len(looks) > 1 else looks[0])
    bench.put([record(seq, at_ms=1_500_000_000_000) for seq in range(1, 11)] + [record(99)])
    while not looks[0]:
        before = len(bench.quarantined)
        await bench.drain.catch_up()
        assert before == 0
    assert DrainState.WAITING in [state for state, _ in bench.states]
    assert any("clock is wrong" in reason for _, reason in bench.states)
    assert len(bench.quarantined) == 20


@pytest.mark.influxdb
async def test_points_older_than_influxdb_keeps_cost_a_few_requests_not_thousands(influx, tmp_path):
    """The real answer names how many it dropped: those are the oldest, wherever they stand."""
    influx.create_database("expiring")
    http = InfluxHttp(influx.url, TOKEN)
    http.query('CREATE RETENTION POLICY "raw" ON "expiring" DURATION 30d REPLICATION 1 DEFAULT', post=True)
    http.close()
    store = CountingSeries(url=influx.url, token=TOKEN, org="fleet", bucket="expiring", timeout_s=5)
    bench = Bench(tmp_path, store)
    records = [record(seq) for seq in range(1, 501)]
    records[100:100] = [record(seq, device="room-009", at_ms=1_500_000_000_000) for seq in range(1, 201)]
    bench.put(records)
    await bench.drain.catch_up()
    assert await store.count() == 1000
    assert len(bench.quarantined) == 400
    assert {entry.device_id for entry in bench.quarantined} == {"room-009"}
    assert all("beyond retention policy" in entry.reason for entry in bench.quarantined)
    assert store.writes <= 10
    await store.close()


@pytest.mark.influxdb
async def test_a_proxy_that_takes_small_bodies_only_gets_small_ones(influx, tmp_path):
    bench, store = influx_bench(influx, tmp_path, "small_bodies")
    influx.fault("client_max_body_size 1k;")
    try:
        bench.put([record(seq, device=f"room-{seq * 7919 % 997}", fridge_celsius=seq / 7) for seq in range(1, 501)])
        await bench.drain.catch_up()
    finally:
        influx.fault("")
    assert await store.count() == 1000
    assert bench.quarantined == []
    await store.close()


class CountingSeries(InfluxSeries):
    """Counts requests."""

    writes = 0

    async def write(self, points):
        self.writes += 1
        await super().write(points)


async def test_the_saved_position_is_never_beyond_a_body_that_is_still_on_its_way(tmp_path):
    """The first body of the backlog is held back at the store while later ones are taken."""
    released, taken = asyncio.Event(), []

    class Slow(OrderedStore):
        async def write(self, points):
            first = points[0].fields["message_seq"] == 1
            if first:
                await released.wait()
            await super().write(points)
            taken.append(first)
            if len(taken) == 5:
                saved.append((tmp_path / "position").exists())
                released.set()

    saved = []
    store = Slow()
    bench = Bench(
        tmp_path, store, batch_bytes_max=4000, backlog_bytes_min=40_000, bodies_per_save=2, bodies_per_step=100
    )
    for start in range(1, 201, 10):
        bench.put([record(seq) for seq in range(start, start + 10)])
    await bench.drain.catch_up()
    assert saved == [False]
    assert taken.index(True) >= 4
    assert len(store.points) == 400
    assert int((tmp_path / "position").read_text()) == bench.spool.synced_position


async def test_a_store_that_refuses_everything_from_the_start_is_asked_a_few_times_and_not_about_each_point(tmp_path):
    refusing, asked = True, 0

    def refuse(_points):
        nonlocal asked
        asked += 1
        if refusing:
            raise SeriesError("HTTP 400: a proxy in between knows better", retry_after_s=None)

    async def sleep(_):
        nonlocal refusing
        refusing = False

    store = ScriptedStore(refuse)
    bench = Bench(tmp_path, store, sleep)
    bench.put([record(seq) for seq in range(1, 501)])
    await bench.drain.catch_up()
    assert asked <= 40
    assert (len(store.points), bench.quarantined) == (1000, [])
