"""One suite for every series store: the embedded SQLite one, and InfluxDB on a real server."""

import itertools

import pytest
from influx_fixture import BUCKET, TOKEN

from cloud.adapters.series_influx import InfluxSeries
from cloud.adapters.series_queries import FieldNotNumericError
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.ports import SeriesError
from cloud.timeseries.points import Point, at_ns

START_MS = 1_800_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
database_names = (f"suite_{number}" for number in itertools.count())


@pytest.fixture(params=["sqlite", pytest.param("influxdb", marks=pytest.mark.influxdb)])
async def store(request, tmp_path):
    if request.param == "sqlite":
        series = SqliteSeries(tmp_path / "series.db")
    else:
        server = request.getfixturevalue("influx")
        database = next(database_names)
        server.create_database(database)
        series = InfluxSeries(url=server.url, token=TOKEN, org="fleet", bucket=database)
    yield series
    await series.close()


def point(seq, *, at_ms=None, device="bike-001", kind="bike", index=0, **fields):
    at = START_MS + seq * 1000 if at_ms is None else at_ms
    return Point(kind, device, at_ns(at, 1, seq, index), {"message_seq": seq, **fields})


async def read(store, field, aggregate="mean", *, device="bike-001", **times):
    """One hour of one bike in one step, unless `times` say otherwise."""
    times = {"from_ms": START_MS, "to_ms": START_MS + HOUR_MS, "step_ms": HOUR_MS} | times
    return await store.read("bike", device, field, aggregate=aggregate, **times)


async def test_the_same_points_again_change_nothing(store):
    points = [point(seq, battery_percent=50.0 + seq) for seq in range(100)]
    await store.write(points)
    await store.write(points[40:])
    await store.write(points)
    assert await store.count() == 100
    assert await read(store, "battery_percent", "count") == [(START_MS, 100)]


async def test_equal_times_do_not_overwrite_each_other(store):
    same_ms = [point(seq, at_ms=START_MS, index=index, x=1.0) for seq in range(1, 40) for index in range(64)]
    await store.write(same_ms)
    assert await store.count("bike") == 39 * 64
    assert await read(store, "x", "sum") == [(START_MS, 39 * 64)]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("mean", 2.75), ("min", 1.0), ("max", 4.5), ("sum", 11.0), ("count", 4), ("last", 3.5)],
)
async def test_aggregates(store, aggregate, expected):
    await store.write([point(seq, x=value) for seq, value in enumerate([1.0, 2.0, 4.5, 3.5])])
    assert await read(store, "x", aggregate) == [(START_MS, pytest.approx(expected))]


async def test_buckets_are_aligned_to_the_epoch_and_empty_ones_are_left_out(store):
    minutes = [0, 1, 2, 9, 10]
    await store.write([point(minute, at_ms=START_MS + minute * MINUTE_MS, x=float(minute)) for minute in minutes])
    found = await read(store, "x", from_ms=START_MS + MINUTE_MS, to_ms=START_MS + 10 * MINUTE_MS, step_ms=4 * MINUTE_MS)
    assert found == [(START_MS, pytest.approx(1.5)), (START_MS + 8 * MINUTE_MS, pytest.approx(9.0))]


async def test_from_is_inclusive_and_to_is_exclusive(store):
    times_ns = [(START_MS + ms) * 1_000_000 for ms in (0, 999, 1000)]
    await store.write([Point("bike", "bike-001", at, {"message_seq": 1, "x": 1.0}) for at in times_ns])
    assert await read(store, "x", "count", to_ms=START_MS + 1000) == [(START_MS, 2)]


async def test_devices_and_kinds_stay_apart(store):
    await store.write([point(1, x=1.0), point(1, device="bike-002", x=2.0), point(1, kind="meal_machine", x=3.0)])
    assert await read(store, "x", device="bike-002") == [(START_MS, 2.0)]
    assert (await store.count("bike"), await store.count("meal_machine"), await store.count()) == (2, 1, 3)


async def test_every_value_type_is_stored_as_what_it_is(store):
    await store.write([
        point(1, whole=7, on=True, state="locked", fraction=0.1),
        point(2, whole=8, on=False, state='a "quoted", \\ odd = state 锁', fraction=None),
    ])  # fmt: skip
    assert await read(store, "whole") == [(START_MS, 7.5)]
    assert await read(store, "on", "last") == [(START_MS, 0.0)]
    assert await read(store, "on", "max") == [(START_MS, 1.0)]
    assert await read(store, "state", "count") == [(START_MS, 2)]
    assert await read(store, "fraction", "count") == [(START_MS, 1)]


@pytest.mark.parametrize(
    ("field", "aggregate"),
    [("state", "mean"), ("state", "last"), ("state", "max"), ("on", "mean"), ("on", "sum")],
)
async def test_what_is_no_number_is_refused_not_guessed(store, field, aggregate):
    await store.write([point(1, on=True, state="locked")])
    with pytest.raises(FieldNotNumericError):
        await read(store, field, aggregate)


async def test_unknown_names_are_empty_and_unknown_aggregates_an_error(store):
    await store.write([point(1, x=1.0)])
    assert await read(store, "nothing_of_that_name") == []
    assert await read(store, "x", device="bike-999") == []
    assert await read(store, 'x"; DROP SERIES FROM "bike') == []
    assert await read(store, "x", device="' OR 1=1 --") == []
    with pytest.raises(ValueError, match="median"):
        await read(store, "x", "median")
    assert await store.count() == 1


async def test_numbers_survive_to_the_last_digit(store):
    values = [0.1 + 0.2, 121.52345678901234, 1e-300, 1.7e308, -0.0, 38.0]
    await store.write([point(seq, at_ms=START_MS + seq * MINUTE_MS, x=value) for seq, value in enumerate(values)])
    found = await read(store, "x", "last", step_ms=MINUTE_MS)
    assert [value for _, value in found] == values


async def test_a_value_that_is_no_value_is_refused_for_good(store):
    with pytest.raises(SeriesError) as caught:
        await store.write([Point("bike", "bike-001", 2**70, {"message_seq": 1, "x": 1.0})])
    assert caught.value.retry_after_s is None
    assert await store.count() == 0


async def test_retention_deletes_what_is_older(tmp_path):
    series = SqliteSeries(tmp_path / "series.db")
    await series.write([point(seq, device=f"bike-00{seq % 3}", x=1.0) for seq in range(90)])
    assert await series.delete_before(START_MS + 30_000) == 30
    assert await series.count() == 60
    await series.close()


@pytest.mark.influxdb
@pytest.mark.parametrize(
    ("fault", "permanent"),
    [("return 400 'partial write';", True), ("return 503;", False), ("return 429;", False), ("return 401;", False)],
)
async def test_influxdb_refusals_are_told_apart(influx, fault, permanent):
    series = InfluxSeries(url=influx.url, token=TOKEN, org="fleet", bucket=BUCKET)
    influx.fault(fault)
    try:
        with pytest.raises(SeriesError) as caught:
            await series.write([point(1, x=1.0)])
    finally:
        influx.fault("")
    assert (caught.value.retry_after_s is None) is permanent
    await series.write([point(1, x=1.0)])
    await series.close()
