"""The roll-up worker on a real InfluxDB: late readings are counted, a kill repeats and changes nothing."""

import asyncio
import random

import msgspec
import pytest
from influx_fixture import TOKEN
from postgres_fixture import postgresql_server, postgresql_url
from test_influx_tools import LONG, Bench, readings

from cloud.adapters.influx_rollup import InfluxRollup
from cloud.adapters.series_influx import InfluxSeries
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.exclusion import one_at_a_time
from cloud.timeseries.points import Point, PointMaker
from cloud.timeseries.ready import LineMaker
from cloud.timeseries.rollup import Rollup, TrackedSeries
from cloud.timeseries.touched import TouchedWindows
from fleet import envelope

LATER_MS = 1_790_100_000_000
START_MS = 1_790_000_000_000
__all__ = ["postgresql_server", "postgresql_url"]


class Clock:
    speed = 1.0

    def now_ms(self):
        return LATER_MS

    def monotonic_s(self):
        return 0.0


@pytest.mark.influxdb
async def test_late_readings_change_the_means_and_a_kill_in_between_changes_nothing(influx, tmp_path):
    bench = Bench(influx)
    bench.answer("init", *LONG)
    store = InfluxSeries(url=influx.url, token=TOKEN, org="fleet", bucket=bench.database)

    class Killed(InfluxRollup):
        """Dies after it has written, before that is remembered."""

        deaths = 2

        async def roll(self, level, measurement, from_ms, until_ms):
            written = await super().roll(level, measurement, from_ms, until_ms)
            if self.deaths:
                type(self).deaths -= 1
                raise KeyboardInterrupt
            return written

    rollups = Killed(bench.http, bench.database)
    series = TrackedSeries(store, TouchedWindows(tmp_path / "windows.json"))
    on_time, late = readings(60), [
        Point(one.kind, one.device_id, one.at_ns + 5_000_000_000, one.fields | {"battery_percent": 1.0})
        for one in readings(4)
    ]  # fmt: skip
    await series.write(on_time)

    async def work_off():
        while True:  # each round is a process of its own, that knows what is in the file
            windows = TouchedWindows(tmp_path / "windows.json")
            try:
                assert await Rollup(rollups, windows, Clock()).work_off()
            except KeyboardInterrupt:
                continue
            return windows.count

    assert await work_off() == 0
    before = bench.table("minute", "bike")
    assert len(before) == 30
    series = TrackedSeries(store, TouchedWindows(tmp_path / "windows.json"))
    await series.write(late)
    assert await work_off() == 0
    after = bench.table("minute", "bike")
    changed = {key for key, row in after.items() if row != before.get(key)}
    assert len(changed) == len({one.at_ns // 60_000_000_000 for one in late})
    assert sum(row["message_seq_count"] for row in after.values()) == 64
    assert sum(row["message_seq_count"] for row in bench.table("hour", "bike").values()) == 64
    assert min(row["battery_percent_min"] for row in after.values()) == 1.0
    await store.close()
    bench.http.close()


@pytest.mark.influxdb
@pytest.mark.parametrize("seed", [1, 2])
async def test_levels_are_what_the_readings_say_whatever_came_when(influx, tmp_path, seed):
    """Readings of three hours arrive in any order, in bodies, between roll-ups of processes that begin anew."""
    dice = random.Random(seed)
    bench = Bench(influx)
    bench.answer("init", *LONG)
    store = InfluxSeries(url=influx.url, token=TOKEN, org="fleet", bucket=bench.database)
    maker = LineMaker(PointMaker())
    records, expected = [], {}
    for seq in range(1, 301):
        device_id, at_ms = f"bike-{dice.randrange(3):03d}", START_MS + dice.randrange(3 * 3_600_000)
        battery, state = dice.choice([0.0, 50, dice.uniform(0, 100)]), dice.choice(["locked", "open"])
        reading = {"at": at_ms, "battery_percent": battery, "lock_state": state}
        raw = telemetry(device_id, seq, {name: reading[name] for name in dice.sample(sorted(reading), 3)})
        records.append(raw)
        (point,) = PointMaker().points(raw)
        for length_ms in (60_000, 3_600_000):
            key = length_ms, device_id, at_ms // length_ms * length_ms
            expected.setdefault(key, []).append((point.at_ns, battery, state))
    dice.shuffle(records)
    while records:
        windows = TouchedWindows(tmp_path / "windows.json")  # a process of its own, that knows what is in the file
        series = TrackedSeries(store, windows)
        for _ in range(dice.randrange(1, 4)):
            size = dice.randrange(1, 60)
            body, records = records[:size], records[size:]
            if body:
                await series.write(maker.ready(body, [0] * len(body)).points)
        if dice.random() < 0.7:
            assert await Rollup(InfluxRollup(bench.http, bench.database), windows, Clock()).work_off()
    windows = TouchedWindows(tmp_path / "windows.json")
    assert await Rollup(InfluxRollup(bench.http, bench.database), windows, Clock()).work_off()
    assert windows.count == 0
    for policy, length_ms in (("minute", 60_000), ("hour", 3_600_000)):
        table = bench.table(policy, "bike")
        assert set(table) == {key[1:] for key in expected if key[0] == length_ms}
        for (device_id, at_ms), row in table.items():
            found = sorted(expected[length_ms, device_id, at_ms])
            batteries = [battery for _, battery, _ in found]
            assert row["battery_percent"] == pytest.approx(sum(batteries) / len(batteries))
            assert (row["battery_percent_min"], row["battery_percent_max"]) == (min(batteries), max(batteries))
            assert row["battery_percent_count"] == row["message_seq_count"] == len(found)
            assert row["lock_state"] == found[-1][2]
    await store.close()
    bench.http.close()


def telemetry(device_id, seq, reading):
    payload = msgspec.Raw(msgspec.json.encode({"readings": [reading]}))
    epoch = envelope.boot_epoch(1, 1)
    return envelope.encode(
        envelope.Envelope(1, "bike", device_id, epoch, envelope.Lane.TELEMETRY, seq, START_MS, payload)
    )


@pytest.mark.postgresql
async def test_one_process_at_a_time_rolls_up(postgresql_url):
    databases = [SqlDatabase(postgresql_url), SqlDatabase(postgresql_url)]
    order = []

    async def work(number):
        async with one_at_a_time(databases[number], 7):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(work(0), work(1))
    assert order in ([0, 0, 1, 1], [1, 1, 0, 0])
    for database in databases:
        database.close()
