"""A spool, a drain and stores that do as they are told."""

import asyncio
import contextlib
import random

import msgspec
from influx_fixture import TOKEN

from cloud.adapters.series_influx import InfluxSeries
from cloud.timeseries.drain import DrainOptions, SeriesDrain
from cloud.timeseries.position import PositionFile
from cloud.timeseries.spool import Spool
from fleet import envelope

AT_MS = 1_800_000_000_000


def record(seq, device="room-001", fridge_celsius=3.5, at_ms=AT_MS):
    reading = {
        "at": at_ms + seq, "call_state": "idle", "button_link_ok": True, "button_battery_percent": 90,
        "cord_in_place": True, "occupied": False, "fridge_celsius": fridge_celsius,
    }  # fmt: skip
    payload = msgspec.Raw(msgspec.json.encode({"readings": [reading, reading | {"at": at_ms + seq + 1}]}))
    boot_epoch = envelope.boot_epoch(1, 1)
    return envelope.encode(
        envelope.Envelope(1, "nursing_room", device, boot_epoch, envelope.Lane.TELEMETRY, seq, AT_MS, payload)
    )


class Bench:
    """A spool, a drain and what they told."""

    def __init__(self, folder, store, sleep=asyncio.sleep, batch_bytes_max=1 << 20, spool=None, **options):
        clock = (
            {"store_clock_is_right": options.pop("store_clock_is_right")} if "store_clock_is_right" in options else {}
        )
        self.spool = spool or Spool(folder / "spool", free_bytes_min=0, segment_bytes_max=10_000, consumers=["series"])
        self.quarantined, self.states = [], []
        self.drain = SeriesDrain(
            self.spool,
            store,
            positions=PositionFile(folder / "position"),
            quarantine=self._quarantine,
            randomness=random.Random(3),
            options=DrainOptions(
                interval_s=0.01,
                retry_base_s=0.05,
                batch_bytes_max=batch_bytes_max,
                **{"retry_s_max": 0.1, **options},
            ),
            **clock,
            on_state=lambda state, reason: self.states.append((state, reason)),
            sleep=sleep,
        )

    async def _quarantine(self, entries):
        self.quarantined += entries

    def put(self, records):
        self.spool.append(records, [AT_MS] * len(records))
        self.spool.sync()


class ScriptedStore:
    """Takes points like a store; `script` is called first and may raise."""

    def __init__(self, script=None):
        self.points, self.script, self.writes = {}, script, 0

    async def write(self, points):
        self.writes += 1
        if self.script is not None:
            self.script(points)
        self.points |= {(point.kind, point.device_id, point.at_ns): dict(point.fields) for point in points}


@contextlib.asynccontextmanager
async def draining(bench):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.drain.run())
        yield
        async with asyncio.timeout(30):
            while bench.drain.lag_bytes:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.01)
        task.cancel()


async def until_state(bench, state):
    async with asyncio.timeout(30):
        while bench.drain.state is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def influx_bench(server, folder, database, **options):
    server.create_database(database)
    store = InfluxSeries(url=server.url, token=TOKEN, org="fleet", bucket=database, timeout_s=5)
    return Bench(folder, store, **options), store
