"""When people of the zone want something: curves over the local day, shared by every scenario."""

from dataclasses import dataclass
from typing import Final

from fleet.randomness import Randomness

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
_SHANGHAI_OFFSET_MS: Final = 8 * HOUR_MS  # no daylight saving time
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday; Monday is 0
_CANDIDATES_MAX: Final = 10_000


def local_hour(now_ms: int) -> float:
    """Hour of the day in Dalian, 0 ≤ hour < 24, with its fraction."""
    return (now_ms + _SHANGHAI_OFFSET_MS) % DAY_MS / HOUR_MS


def local_weekday(now_ms: int) -> int:
    """Day of the week in Dalian, Monday is 0."""
    return ((now_ms + _SHANGHAI_OFFSET_MS) // DAY_MS + _EPOCH_WEEKDAY) % 7


@dataclass(frozen=True)
class DemandCurve:
    """Relative demand by hour of a workday; 1.0 is the busiest hour."""

    by_hour: tuple[float, ...]
    weekend_factor: float

    def at(self, now_ms: int) -> float:
        """Share of the peak demand at `now_ms`, interpolated between full hours."""
        hour = local_hour(now_ms)
        first = int(hour)
        low, high = self.by_hour[first], self.by_hour[(first + 1) % 24]
        weekend = self.weekend_factor if local_weekday(now_ms) >= 5 else 1.0
        return (low + (high - low) * (hour - first)) * weekend

    def next_ms(self, now_ms: int, peak_per_hour: float, randomness: Randomness) -> int:
        """Time of the next arrival of a Poisson process that follows the curve, sampled by thinning."""
        at_ms = now_ms
        for _ in range(_CANDIDATES_MAX):
            at_ms += max(1, round(randomness.expovariate(peak_per_hour) * HOUR_MS))
            if randomness.random() < self.at(at_ms):
                break
        return at_ms


RIDES: Final = DemandCurve(
    (
        0.02, 0.01, 0.0, 0.0, 0.0, 0.03, 0.15, 0.55, 1.0, 0.5, 0.2, 0.25,
        0.45, 0.3, 0.18, 0.18, 0.25, 0.6, 0.9, 0.5, 0.3, 0.25, 0.15, 0.05,
    ),
    weekend_factor=0.35,
)  # fmt: skip
MEALS: Final = DemandCurve(
    (
        0.03, 0.02, 0.01, 0.01, 0.01, 0.02, 0.06, 0.2, 0.15, 0.05, 0.1, 0.7,
        1.0, 0.45, 0.1, 0.06, 0.08, 0.25, 0.45, 0.3, 0.2, 0.15, 0.1, 0.05,
    ),
    weekend_factor=0.15,
)  # fmt: skip
CURVES: Final = {"rides": RIDES, "meals": MEALS}
