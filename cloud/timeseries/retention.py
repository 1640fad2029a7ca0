"""Deletes what is older than the embedded series is to keep, once a day.

An InfluxDB has a retention of its own; only the embedded store needs this.
"""

import asyncio
from typing import Final, Protocol

import structlog

from cloud.ports import SeriesError
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

_log = structlog.get_logger(__name__)

DAY_S: Final = 86_400
FIRST_AFTER_S: Final = 300
"""Real seconds after a start: also a process that is restarted every night keeps its bound."""


class PrunableSeries(Protocol):
    """A store that forgets on demand."""

    async def delete_before(self, at_ms: int) -> int:
        """Delete older points; returns how many. Raises SeriesError."""
        ...


async def keep_days(series: PrunableSeries, days: int, clock: Clock) -> None:
    """Keep the last `days` business days until cancelled."""
    await asyncio.sleep(FIRST_AFTER_S)
    while True:
        await prune(series, days, clock)
        await asyncio.sleep(DAY_S / clock.speed)


async def prune(series: PrunableSeries, days: int, clock: Clock) -> None:
    """Delete once what is older than `days`; a store that can't now is asked again the next day."""
    try:
        deleted = await series.delete_before(clock.now_ms() - days * DAY_S * MILLISECONDS_PER_SECOND)
    except SeriesError as error:
        _log.warning("old points not deleted", error=str(error))
    else:
        if deleted:
            _log.info("old points deleted", points=deleted, days=days)
