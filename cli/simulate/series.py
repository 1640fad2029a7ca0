"""A series in memory that can be away, and remembers under which times every value was written."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.ports import SeriesError, SeriesPoint
from cloud.timeseries.points import NANOSECONDS_PER_MILLISECOND, SEQ_FIELD

_RETRY_AFTER_S: Final = 2.0
_SUFFIX: Final = "_count"
_LEFT_OUT: Final = frozenset({"at", SEQ_FIELD})


def value_of(fields: Mapping[str, Any]) -> int:
    """A checksum of a reading's values: the same for the reading in a message and for its point, in one process."""
    try:
        return hash(frozenset([item for item in fields.items() if item[0] not in _LEFT_OUT]))
    except TypeError:  # lists become counts in a point, and what is nested stays away from it
        flat: dict[str, Any] = {}
        for name, value in fields.items():
            if isinstance(value, list):
                flat[name + _SUFFIX] = len(value)
            elif not isinstance(value, dict):
                flat[name] = value
        return hash(frozenset([item for item in flat.items() if item[0] not in _LEFT_OUT]))


class MemorySeries:
    """`cloud.ports.SeriesSink`."""

    def __init__(self) -> None:
        self.down = False
        self.points: dict[tuple[str, int], int] = {}
        """(device, ns) → value."""
        self.times: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
        """Device → (ms, value) → under how many different ns it stands."""
        self.overwritten = 0

    async def write(self, points: Sequence[SeriesPoint]) -> None:
        """Upsert."""
        if self.down:
            raise SeriesError("503", retry_after_s=_RETRY_AFTER_S)
        for point in points:
            value = value_of(point.fields)
            key = point.device_id, point.at_ns
            before = self.points.get(key)
            if before == value:
                continue
            if before is not None:
                self.overwritten += 1
            self.points[key] = value
            times = self.times[point.device_id]
            moment = point.at_ns // NANOSECONDS_PER_MILLISECOND, value
            times[moment] = times.get(moment, 0) + 1
