"""When people come to a nursing room: office hours of the zone, seen from the device's clock."""

from typing import Final

from fleet.randomness import Randomness

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
_SHANGHAI_OFFSET_MS: Final = 8 * HOUR_MS  # no daylight saving time
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday; Monday is 0
WEEKEND_FACTOR: Final = 0.08
CANDIDATES_MAX: Final = 2_000

# Share of a room's visits by hour: milk is pumped in mid-morning, around noon and in mid-afternoon.
VISITS_BY_HOUR: Final = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.8, 1.0, 1.6, 1.4,
    1.8, 1.3, 1.0, 1.5, 1.2, 0.8, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0,
)  # fmt: skip
_VISITS_SUM: Final = sum(VISITS_BY_HOUR)


def local_hour(now_ms: int) -> int:
    """Hour of the day in Dalian, 0 … 23."""
    return (now_ms + _SHANGHAI_OFFSET_MS) % DAY_MS // HOUR_MS


def is_weekend(now_ms: int) -> bool:
    """Saturday or Sunday in Dalian."""
    return ((now_ms + _SHANGHAI_OFFSET_MS) // DAY_MS + _EPOCH_WEEKDAY) % 7 >= 5


def visits_per_hour(now_ms: int, visits_per_workday: float) -> float:
    """Expected visits in the hour around `now_ms`."""
    weekend = WEEKEND_FACTOR if is_weekend(now_ms) else 1.0
    return visits_per_workday * weekend * VISITS_BY_HOUR[local_hour(now_ms)] / _VISITS_SUM


def next_visit_ms(now_ms: int, visits_per_workday: float, randomness: Randomness) -> int:
    """Time of the next visit: a Poisson process whose rate follows the day, sampled by thinning."""
    peak = visits_per_workday * max(VISITS_BY_HOUR) / _VISITS_SUM
    at_ms = now_ms
    if peak <= 0:
        return now_ms + 365 * DAY_MS
    for _ in range(CANDIDATES_MAX):
        at_ms += max(1, round(randomness.expovariate(peak) * HOUR_MS))
        if randomness.random() * peak < visits_per_hour(at_ms, visits_per_workday):
            break
    return at_ms


def next_rare_ms(now_ms: int, per_day: float, randomness: Randomness) -> int | None:
    """Time of the next rare happening at a constant rate; None for a rate of zero."""
    return now_ms + max(1, round(randomness.expovariate(per_day) * DAY_MS)) if per_day > 0 else None
