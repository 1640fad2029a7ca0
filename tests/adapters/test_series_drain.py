"""The drain: whatever happens to the store, the series holds the spool's points, each once."""

import asyncio

import pytest
from drain_bench import AT_MS, Bench, ScriptedStore, draining, influx_bench, record, until_state

from cloud.adapters.series_sqlite import SqliteSeries
from cloud.ports import SeriesAccessError, SeriesError
from cloud.timeseries.drain import DrainState
from cloud.timeseries.points import Point

HOUR_MS = 3_600_000


async def test_everything_arrives_and_segments_are_let_go(tmp_path):
    store = ScriptedStore()
    bench = Bench(tmp_path, store, batch_bytes_max=4000)
    for start in range(1, 200, 10):
        bench.put([record(seq) for seq in range(start, start + 10)])
    await bench.drain.catch_up()
    assert len(store.points) == 400
    assert bench.drain.lag_bytes == 0
    assert len(list((tmp_path / "spool").glob("*.spool"))) == 1
    assert await bench.drain.step() is False


async def test_a_crash_after_the_write_repeats_and_changes_nothing(tmp_path):
    store = SqliteSeries(tmp_path / "series.db")
    bench = Bench(tmp_path, store)
    bench.put([record(seq) for seq in range(1, 51)])
    await bench.drain.catch_up()
    (tmp_path / "position").unlink()  # as if killed before the position was saved
    again = Bench(tmp_path, store)
    await again.drain.catch_up()
    assert again.drain.statistics.points_written == 100
    assert await store.count() == 100
    await store.close()


async def test_only_the_refused_points_are_quarantined(tmp_path):
    bad = {13, 14, 77}

    def refuse(points):
        if any(point.fields["message_seq"] in bad for point in points):
            raise SeriesError("HTTP 400: field type conflict", retry_after_s=None)

    store = ScriptedStore(refuse)
    bench = Bench(tmp_path, store)
    bench.put([record(seq) for seq in range(1, 101)])
    await bench.drain.catch_up()
    assert {fields["message_seq"] for fields in store.points.values()} == set(range(1, 101)) - bad
    assert sorted(entry.seq for entry in bench.quarantined) == [13, 13, 14, 14, 77, 77]
    entry = bench.quarantined[0]
    assert entry.reason == "series: HTTP 400: field type conflict"
    assert entry.payload.startswith(b"nursing_room,device_id=room-001 ")
    assert entry.device_id == "room-001"
    assert store.writes < 60


@pytest.mark.parametrize("taken_before", [0, 5])
@pytest.mark.parametrize("refusals", [1, 7, 60])
async def test_a_store_that_refuses_everything_for_a_while_is_an_outage_and_costs_no_point(
    tmp_path, taken_before, refusals
):
    left = refusals

    def refuse(points):
        nonlocal left
        if left > 0 and any(point.fields["message_seq"] > taken_before for point in [*points, *switched]):
            left -= 1
            raise SeriesError("HTTP 400: a proxy in between knows better", retry_after_s=None)

    switched = []
    store = ScriptedStore(refuse)
    bench = Bench(tmp_path, store)
    if taken_before:
        bench.put([record(seq) for seq in range(1, taken_before + 1)])
        await bench.drain.catch_up()
    switched = list(bench.drain._maker.points(record(99)))  # from now on it refuses whatever comes
    bench.put([record(seq) for seq in range(taken_before + 1, 11)])
    await bench.drain.catch_up()
    assert {fields["message_seq"] for fields in store.points.values()} == set(range(1, 11))
    assert bench.quarantined == []
    assert bench.drain.state is DrainState.FLOWING
    if refusals > 40:  # halving alone could not use them up
        assert DrainState.WAITING in [state for state, _ in bench.states]


async def test_bad_points_that_stand_alone_wait_for_a_good_one_and_then_go(tmp_path):
    def refuse(points):
        if any(point.fields["message_seq"] < 3 for point in points):
            raise SeriesError("HTTP 400: field type conflict", retry_after_s=None)

    store = ScriptedStore(refuse)

    async def sleep(_):
        if not store.points and bench.drain.state is DrainState.WAITING:
            bench.put([record(3)])
        await asyncio.sleep(0)

    bench = Bench(tmp_path, store, sleep)
    bench.put([record(1), record(2)])
    await bench.drain.catch_up()
    assert {fields["message_seq"] for fields in store.points.values()} == {3}
    assert sorted(entry.seq for entry in bench.quarantined) == [1, 1, 2, 2]


async def test_an_unusable_record_is_quarantined_with_its_bytes(tmp_path):
    store = ScriptedStore()
    bench = Bench(tmp_path, store)
    bench.put([record(1), b"not an envelope", record(2)])
    await bench.drain.catch_up()
    assert len(store.points) == 4
    assert [entry.payload for entry in bench.quarantined] == [b"not an envelope"]


async def test_an_outage_is_waited_for_with_growing_bounded_delays_and_told_once(tmp_path):
    delays, outcomes = [], [SeriesError("HTTP 503", retry_after_s=0.02)] * 8 + [None]

    def fail(_points):
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    async def sleep(seconds):
        delays.append(seconds)

    store = ScriptedStore(fail)
    bench = Bench(tmp_path, store, sleep=sleep)
    bench.put([record(1)])
    await bench.drain.catch_up()
    assert len(store.points) == 2
    assert len(delays) == 8
    assert all(0.02 <= delay <= 0.12 for delay in delays)
    assert [state for state, _ in bench.states] == [DrainState.WAITING, DrainState.FLOWING]


async def test_a_refused_token_is_an_alarm_and_loses_nothing(tmp_path):
    outcomes = [SeriesAccessError("HTTP 401: unauthorized", retry_after_s=0.01)] * 3 + [None]

    def fail(_points):
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    store = ScriptedStore(fail)
    bench = Bench(tmp_path, store)
    bench.put([record(1)])
    await bench.drain.catch_up()
    assert bench.states[0] == (DrainState.NO_ACCESS, "HTTP 401: unauthorized")
    assert bench.quarantined == []
    assert len(store.points) == 2


async def sums(store):
    """What must be equal afterwards: number of points, and their values."""
    total = await store.read("nursing_room", "room-001", "message_seq", AT_MS, AT_MS + HOUR_MS, HOUR_MS, "sum")
    return await store.count(), total


@pytest.mark.influxdb
async def test_influxdb_killed_in_mid_drain_holds_the_same_points_afterwards(influx, tmp_path):
    bench, store = influx_bench(influx, tmp_path, "killed", batch_bytes_max=4000)
    reference_folder = tmp_path / "reference"
    reference_folder.mkdir()
    reference_store = SqliteSeries(tmp_path / "reference.db")
    reference = Bench(reference_folder, reference_store)
    async with draining(bench):
        for start in range(1, 1000, 100):
            records = [record(seq) for seq in range(start, start + 100)]
            bench.put(records)
            reference.put(records)
            if start == 301:
                await asyncio.to_thread(influx.stop_database)
            if start == 701:
                await until_state(bench, DrainState.WAITING)
                await asyncio.to_thread(influx.start_database)
    await reference.drain.catch_up()
    assert await sums(store) == await sums(reference_store)
    assert await store.count() == 2000
    assert bench.quarantined == []
    await store.close()
    await reference_store.close()


@pytest.mark.influxdb
@pytest.mark.parametrize(
    ("fault", "state"),
    [("return 503;", DrainState.WAITING), ("return 429;", DrainState.WAITING), ("return 401;", DrainState.NO_ACCESS)],
)
async def test_influxdb_refusing_for_a_while_loses_nothing(influx, tmp_path, fault, state):
    bench, store = influx_bench(influx, tmp_path, f"fault_{state.value}_{fault[7:10]}")
    influx.fault(fault)
    async with draining(bench):
        bench.put([record(seq) for seq in range(1, 101)])
        await until_state(bench, state)
        await asyncio.to_thread(influx.fault, "")
    assert await store.count() == 200
    assert bench.quarantined == []
    await store.close()


@pytest.mark.influxdb
async def test_a_field_that_changed_its_type_is_found_by_halving(influx, tmp_path):
    """A real partial write: InfluxDB answers 400 for the whole request and names one line."""
    bench, store = influx_bench(influx, tmp_path, "conflict")
    await store.write([point_with_text_fridge()])
    bench.put([record(seq) for seq in range(1, 4)])
    bench.put([record(seq, device="room-002", fridge_celsius=None) for seq in range(1, 51)])
    await bench.drain.catch_up()
    assert await store.read("nursing_room", "room-002", "message_seq", AT_MS, AT_MS + HOUR_MS, HOUR_MS, "count") == [
        (AT_MS, 100)
    ]
    assert len(bench.quarantined) == 6
    assert all("fridge_celsius" in entry.reason for entry in bench.quarantined)
    await store.close()


def point_with_text_fridge():
    return Point("nursing_room", "old", AT_MS * 1_000_000, {"message_seq": 1, "fridge_celsius": "cold"})
