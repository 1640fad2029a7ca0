"""What InfluxDB and the proxy before it refuse, and when: on the real servers; and where the spool's bound lies."""

import asyncio
import contextlib
import itertools
from types import SimpleNamespace

import msgspec
import pytest
from drain_bench import AT_MS, Bench, ScriptedStore
from influx_fixture import TOKEN

from cloud.adapters.influx_http import InfluxHttp
from cloud.adapters.series_influx import InfluxSeries
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.ports import SeriesError
from cloud.timeseries.points import Point, PointMaker
from cloud.timeseries.ready import ReadyLines
from cloud.timeseries.spool import Spool, SpoolFullError
from cloud.watched import watch_ingest
from fleet import envelope

database_names = (f"refusals_{number}" for number in itertools.count())


def telemetry(seq, device="bike-001", **fields):
    """One reading a message, as most are: the short way from the spool to a line."""
    reading = {"at": AT_MS + seq * 1000, "battery_percent": seq / 7, "lock_state": "locked", "signal_dbm": -70} | fields
    payload = msgspec.Raw(msgspec.json.encode({"readings": [reading]}))
    epoch = envelope.boot_epoch(1, 1)
    return envelope.encode(envelope.Envelope(1, "bike", device, epoch, envelope.Lane.TELEMETRY, seq, AT_MS, payload))


class Watched(InfluxSeries):
    """Notes whether bodies were ready, and how many lines they had."""

    def __init__(self, **rest):
        super().__init__(**rest)
        self.sizes, self.ready = [], 0

    async def write(self, points):
        self.sizes.append(len(points))
        self.ready += isinstance(points, ReadyLines)
        await super().write(points)


def on_influxdb(influx, folder, **options):
    database = next(database_names)
    influx.create_database(database)
    store = Watched(url=influx.url, token=TOKEN, org="fleet", bucket=database, timeout_s=5)
    return Bench(folder, store, **options), store, database


def rows(influx, database):
    http = InfluxHttp(influx.url, TOKEN)
    found = http.query("SELECT * FROM bike GROUP BY *", database=database, epoch="ns")
    http.close()
    return {one["tags"]["device_id"]: (one["columns"], one["values"]) for one in found}


@pytest.mark.influxdb
async def test_ready_lines_are_the_same_points_as_encoded_ones(influx, tmp_path):
    bench, store, database = on_influxdb(influx, tmp_path, lines_max=100)
    records = [telemetry(seq, f"bike-{device:03d}") for seq in range(1, 101) for device in range(4)]
    bench.put(records)
    await bench.drain.catch_up()
    assert store.ready == len(store.sizes) == 4
    _, other, other_database = on_influxdb(influx, tmp_path)
    await other.write([point for raw in records for point in PointMaker().points(raw)])
    assert other.ready == 0
    assert rows(influx, database) == rows(influx, other_database)
    assert await store.count() == 400
    await store.close()
    await other.close()


@pytest.mark.influxdb
@pytest.mark.parametrize(("status", "asked_s"), [(429, 7), (503, 9)])
async def test_the_servers_wish_to_wait_is_followed(influx, tmp_path, status, asked_s):
    """A wish longer than our own cap is cut to it: the server may be back before."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.to_thread(influx.fault, "")

    bench, store, _ = on_influxdb(influx, tmp_path, sleep=sleep, retry_s_max=60.0)
    bench.put([telemetry(seq) for seq in range(1, 51)])
    influx.fault(f"add_header Retry-After {asked_s} always; return {status};")
    try:
        await bench.drain.catch_up()
    finally:
        influx.fault("")
    assert len(waits) == 1
    assert asked_s <= waits[0] <= asked_s + 0.05
    assert (await store.count(), bench.quarantined) == (50, [])
    await store.close()


@pytest.mark.influxdb
async def test_lines_of_another_type_are_set_aside_and_all_others_written(influx, tmp_path):
    """The partial write of the real server, in a backlog of several bodies at once."""
    bench, store, database = on_influxdb(
        influx, tmp_path, batch_bytes_max=40_000, lines_max=200, backlog_bytes_min=50_000
    )
    clash = Point("bike", "old", AT_MS * 1_000_000, {"message_seq": 1, "tilt_degrees": "upright"})
    await store.write([clash])
    bad = {17, 203, 204, 599}
    for start in range(1, 1001, 50):
        bench.put([telemetry(seq, **({"tilt_degrees": 1.5} if seq in bad else {})) for seq in range(start, start + 50)])
    await bench.drain.catch_up()
    assert sorted(entry.seq for entry in bench.quarantined) == sorted(bad)
    assert all("tilt_degrees" in entry.reason for entry in bench.quarantined)
    assert all(b"tilt_degrees=1.5" in entry.payload for entry in bench.quarantined)
    columns, values = rows(influx, database)["bike-001"]
    written = [dict(zip(columns, row, strict=True))["message_seq"] for row in values]
    assert set(range(1, 1001)) - bad <= set(written)
    assert bench.drain.lag_bytes == 0
    await store.close()


@pytest.mark.influxdb
async def test_bodies_in_flight_together_are_as_many_as_allowed(influx, tmp_path):
    bench, store, _ = on_influxdb(influx, tmp_path, batch_bytes_max=40_000, lines_max=10, backlog_bytes_min=50_000)
    flying, most = 0, 0
    write = store.write

    async def counted(points):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await write(points)
        flying -= 1

    store.write = counted
    for start in range(1, 1001, 50):
        bench.put([telemetry(seq) for seq in range(start, start + 50)])
    await bench.drain.catch_up()
    assert await store.count() == 1000
    assert most == 2
    await store.close()


async def test_a_full_spool_is_told_and_lets_go_when_the_store_is_back(tmp_path):
    """Nothing is evicted here: what finds no room is not acknowledged, and its device keeps it."""
    away = [True]

    def refuse(_):
        if away[0]:
            raise SeriesError("HTTP 503: away", retry_after_s=1.0)

    async def sleep(_):
        away[0] = False

    spool = Spool(tmp_path / "spool", consumers=["series"], bytes_max=40_000, free_bytes_min=0, segment_bytes_max=8_000)
    watch = SimpleNamespace(numbers=SimpleNamespace(single={}), conditions=[])
    numbers = SimpleNamespace(statistics=SimpleNamespace(), publishes_waiting=0, publishes_max=1)
    watch_ingest(watch, SimpleNamespace(routine=numbers, emergency=numbers), spool, SimpleNamespace(lanes={}))
    (alarm,) = [one for one in watch.conditions if one.name == "spool"]
    assert not alarm.holds()
    taken = 0
    with contextlib.suppress(SpoolFullError):
        while True:
            spool.append([telemetry(taken + 1)], [AT_MS])
            spool.sync()
            taken += 1
    assert spool.statistics.batches_refused == 1
    assert spool.used_bytes <= 40_000
    assert alarm.holds()
    store = ScriptedStore(refuse)
    bench = Bench(tmp_path, store, sleep=sleep, batch_bytes_max=4_000, spool=spool)
    await bench.drain.catch_up()
    assert len(store.points) == taken
    assert not alarm.holds()
    spool.append([telemetry(1000)], [AT_MS])


async def test_a_series_met_in_a_transaction_that_failed_is_met_again(tmp_path):
    """Its id may belong to another series by then."""
    store = SqliteSeries(tmp_path / "series.db")
    bad = Point("bike", "bike-001", 2**70, {"message_seq": 1})
    with pytest.raises(SeriesError):
        await store.write([Point("bike", "bike-001", 1, {"message_seq": 1}), bad])
    await store.write([Point("bike", "bike-002", 1, {"message_seq": 2})])
    await store.write([Point("bike", "bike-001", 1_000_000, {"message_seq": 3})])
    assert await store.read("bike", "bike-001", "message_seq", 0, 10, 10, "last") == [(0, 3.0)]
    assert await store.read("bike", "bike-002", "message_seq", 0, 10, 10, "last") == [(0, 2.0)]
    await store.close()
