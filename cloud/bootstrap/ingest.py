"""What a process with the role `ingest` runs."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

import devices
from cloud.adapters.mqtt.link import BrokerLink
from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.series_sqlite import SqliteSeries
from cloud.adapters.sql.patience import endless
from cloud.bootstrap.enrolment import identity_desk
from cloud.bootstrap.parts import Parts, Surroundings
from cloud.data_directory import stable_name
from cloud.drain_rows import DrainPosition, Quarantine
from cloud.identity.files import broker_tls
from cloud.ingest import repository as ingest_rows
from cloud.ingest.leases import Leases
from cloud.ingest.shares import Shares
from cloud.pipeline import Pipeline, PipelineLimits
from cloud.settings import SHARE, CloudSettings
from cloud.timeseries import retention
from cloud.timeseries.drain import SeriesDrain
from cloud.timeseries.rollup import TrackedSeries
from cloud.timeseries.spool import Spool
from cloud.watched import drain_fields, ingest_fields, watch_drain, watch_ingest
from fleet.topics import INGESTER_NAME, shard_of

_log = structlog.get_logger(__name__)

STORE_CLOCK_MS_MAX: Final = 3_600_000
"""A series store whose clock is further off is not believed when it calls points too old."""


async def start_ingest(parts: Parts, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
    """Link, spool, leases, pipeline and the way into the series; all tasks in `group`."""
    settings, around, database, checks = parts.settings, parts.around, parts.database, parts.checks
    link = _link(settings, around)
    parts.to_devices.target = link.publish
    # The spool lives as long as its folder: its name is the owner of the leases.
    name = stable_name(settings.data_directory / "ingester-id", around.new_id)
    marks = await database.read(lambda tx: [ingest_rows.spool_position(tx, name, one) for one in ("twin", "series")])
    spool = Spool(
        settings.data_directory / "spool", bytes_max=settings.spool_bytes_max, position_min=max(marks),
        consumers=("twin",) if settings.series == "off" else ("twin", "series"),
    )  # fmt: skip
    stack.callback(spool.close)
    leases = Leases(database, name, around.real_now_ms, settings.lease_s)
    stack.push_async_callback(leases.release)
    desk = identity_desk(settings, around, database, link.publish)
    group.create_task(endless(desk.run()))
    parts.commands.link_is_up = lambda: link.connected
    pipeline = Pipeline(
        kinds=devices.kinds(), link=link, spool=spool, spool_name=name, database=database, leases=leases,
        dispatch=parts.dispatch, commands=parts.commands, acknowledger=parts.acknowledger, intents=parts.intents,
        event_handlers=parts.handlers.events, changes=parts.changes, wake_outbox=parts.outbox.wake,
        clock=around.clock, limits=PipelineLimits(
            batch_messages_max=settings.batch_messages_max, twin_flush_s=settings.twin_flush_ms / 1000
        ),
        identity=desk,
    )  # fmt: skip

    def takes_commands(device_id: str) -> bool:
        lane = pipeline.lanes.get(device_id)
        return shard_of(device_id) in leases.shards and not (lane is not None and lane.revoked)

    parts.commands.mine = takes_commands
    waiting = {True: "loading", False: "another ingester holds its shards"}
    checks["ingest"] = lambda: "ok" if pipeline.ready.is_set() else waiting[bool(leases.shards)]
    checks["clock"] = lambda: "behind what is stored: set it, timedatectl" if pipeline.clock_watch.behind else "ok"
    checks["broker"] = lambda: "ok" if link.connected else "not connected"
    if settings.shards == SHARE and not database.is_sqlite:
        shares = Shares(database, name, around.real_now_ms, settings.lease_s)
        stack.push_async_callback(shares.leave)
        group.create_task(endless(shares.keep_seat()))
        group.create_task(endless(_keep_share(shares, pipeline)))
    else:
        group.create_task(endless(pipeline.run(settings.shard_numbers())))
    watch_ingest(parts.watch, link, spool, pipeline)
    parts.platform.append(lambda: ingest_fields(link, spool))
    if settings.series != "off":
        # Also while another ingester has our shards: what we took before is in our spool alone.
        drain = SeriesDrain(
            spool, parts.series, positions=DrainPosition(database, name), quarantine=Quarantine(database),
            randomness=around.randomness, store_clock_is_right=partial(_clock_is_right, parts),
        )  # fmt: skip
        group.create_task(endless(drain.run()))
        parts.series_is_behind.append(lambda: drain.is_behind)
        watch_drain(parts.watch, drain)
        parts.platform.append(lambda: drain_fields(drain))
    if isinstance(parts.series, SqliteSeries) and settings.series_days:
        group.create_task(retention.keep_days(parts.series, settings.series_days, around.clock))


async def _keep_share(shares: Shares, pipeline: Pipeline) -> None:
    """Work on our share of the shards; whenever it is another one, end the round and begin again with that."""

    async def leave_when_changed(held: frozenset[int]) -> None:
        await shares.changed(held)
        pipeline.leave()

    await shares.sit()
    while True:
        held = await shares.take()
        _log.info("working on a share of the shards", shards=len(held))
        async with asyncio.TaskGroup() as term:
            looking = term.create_task(leave_when_changed(held))
            await pipeline.run(held)
            looking.cancel()


def _clock_is_right(parts: Parts) -> bool:
    """Whether InfluxDB's clock, as it was said with the last refusal, is about ours."""
    store = parts.series.store if isinstance(parts.series, TrackedSeries) else parts.series
    said_ms = getattr(store, "date_ms", None)
    return said_ms is None or abs(said_ms - parts.around.real_now_ms()) < STORE_CLOCK_MS_MAX


def _link(settings: CloudSettings, around: Surroundings) -> BrokerLink:
    options = ReceiverOptions(
        client_id=f"{INGESTER_NAME}-{around.new_id()[:8]}",
        host=settings.broker_host,
        port=settings.broker_port,
        tls=broker_tls(settings),
    )
    linger_s = settings.batch_linger_ms / 1000
    return BrokerLink(
        options, around.randomness, batch_messages_max=settings.batch_messages_max, linger_s=linger_s
    )  # fmt: skip
