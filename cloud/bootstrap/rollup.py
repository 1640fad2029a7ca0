"""The coarser levels of the series, rolled up by each process from what it wrote itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.exclusion import ROLLUP, one_at_a_time
from cloud.adapters.sql.patience import endless
from cloud.bootstrap.parts import Parts
from cloud.ports import SeriesError
from cloud.timeseries.rollup import Rollup, TrackedSeries
from cloud.watched import watch_rollup

REQUEST_S_MAX: Final = 120.0
"""Of one roll-up: an hour of a large fleet's readings; nobody waits for it."""
RETRY_AFTER_S: Final = 10.0


def start_rollup(parts: Parts, group: asyncio.TaskGroup) -> None:
    """All tasks in `group`; nothing for an embedded series, which computes what is asked for when it is asked."""
    settings, around = parts.settings, parts.around
    if not isinstance(parts.series, TrackedSeries):
        return
    from cloud.adapters.influx_http import InfluxHttp  # noqa: PLC0415  # only where it is used
    from cloud.adapters.influx_rollup import InfluxRollup  # noqa: PLC0415

    token = settings.influxdb_token.get_secret_value()
    http = InfluxHttp(settings.influxdb_url, token, timeout_s=REQUEST_S_MAX)
    rollup = Rollup(
        InfluxRollup(http, settings.influxdb_bucket.partition("/")[0]), parts.series.touched, around.clock,
        is_busy=lambda: any(behind() for behind in parts.series_is_behind),
        exclusively=partial(_exclusively, parts.database),
    )  # fmt: skip
    group.create_task(endless(rollup.run()))

    def ahead_ms() -> int:
        return 0 if http.date_ms is None else http.date_ms - around.real_now_ms()

    watch_rollup(parts.watch, rollup, ahead_ms)


@asynccontextmanager
async def _exclusively(database: SqlDatabase) -> AsyncIterator[None]:
    """A database that is away is waited for like a series that is."""
    try:
        async with one_at_a_time(database, ROLLUP):
            yield
    except SQLAlchemyError as error:
        words = str(error).splitlines()[0]
        raise SeriesError(f"no turn to roll up, the database is away: {words}", retry_after_s=RETRY_AFTER_S) from error
