"""Who is in the fleet, what breaks when, and the points of one hour."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import devices
from cli.sample import readings
from cloud.history.groups import counted_groups, is_in
from cloud.history.steps import point
from cloud.timeseries.points import Point
from fleet import series
from fleet.kind import Kind

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
ZONE_MS: Final = 8 * HOUR_MS
"""Asia/Shanghai: people's days follow it."""
RAW_NS: Final = 1_000_000
COUNTS: Final[Mapping[str, int]] = {"bike": 180, "meal_machine": 20, "nursing_room": 190}
OTHERS: Final = 20
"""Devices of a kind that is not in `COUNTS`."""
FAULTS_PER_DAY: Final = 0.15
"""Of each device."""
RIDES: Final = (0, 0, 0, 0, 0, 1, 4, 11, 14, 6, 3, 4, 8, 7, 4, 3, 4, 9, 15, 9, 5, 3, 2, 1)
"""Weight of each local hour."""
MEALS: Final = (1, 0, 0, 0, 0, 1, 3, 6, 4, 2, 4, 22, 26, 9, 3, 2, 3, 9, 12, 6, 3, 2, 1, 1)
RIDES_PER_BIKE: Final = 4.0
MEALS_PER_MACHINE: Final = 55.0
CALLS_PER_ROOM: Final = 0.06
PLATFORM_STEP_MS: Final = 10_000
RATES: Final = {"messages_total": 14.6, "accepted_total": 14.5, "duplicates_total": 0.05, "commits_total": 4.0,
                "api_requests_total": 6.0, "api_refused_total": 0.04, "outbox_delivered_total": 0.02,
                "series_points_total": 14.5, "history_points_total": 0.3, "press_to_notified_total": 0.0002,
                "cpu_s_total": 0.03}  # fmt: skip
"""Counter of `platform` → its growth per second."""
LEVELS: Final = {"disk_free_percent": 61.0, "disk_free_bytes": 6.1e10, "resident_bytes": 1.3e8, "commit_ms_mean": 3.5,
                 "api_ms_p95": 45.0, "api_ms_mean": 9.0, "spool_fill_percent": 0.4, "press_to_notified_ms_p99": 200.0,
                 "synthetic_age_ms": 5_000, "spool_bytes": 4e6, "clients": 14, "broker_held": 3,
                 "loop_late_ms": 2, "history_lag_ms": 900}  # fmt: skip
SHOWN_FAULTS: Final = {
    "bike": (("fallen", 14.4, 15.1), ("lock_jammed", 18.2, 20.0)),
    "meal_machine": (("door_open_long", 14.5, 14.9), ("heater_fault", 18.3, 20.0)),
    "nursing_room": (("fridge_door_open", 14.3, 14.6), ("fridge_warm", 14.6, 15.1), ("fridge_hot", 18.1, 20.0)),
}  # fmt: skip
"""Kind → what is broken on its first device every day, from and until which local hour, so that boards show some."""
SHOWN_RIDES: Final = (13.6, 15.5, 16.9, 17.4)
SHOWN_CALLS: Final = ((15.2, 15.3), (18.8, 19.4))
"""Local hours: of the first room, pressed and cleared."""
BEGAN_MS: Final = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class Fault:
    """Something broken on one device: [from, until)."""

    device_id: str
    kind: str
    key: str
    priority: str
    from_ms: int
    until_ms: int


class SampleFleet:
    """The same seed and counts give the same points, hour by hour, in whatever order hours are asked for."""

    def __init__(self, seed: int, devices_count: int = sum(COUNTS.values())) -> None:
        share = devices_count / sum(COUNTS.values())
        self.seed = seed
        self.kinds: dict[str, Kind] = dict(devices.kinds())
        self.devices: dict[str, list[str]] = {
            name: [f"{name.partition('_')[0]}-{n:03d}" for n in range(1, 1 + max(1, round(_count(name) * share)))]
            for name in self.kinds
        }
        self._faults_on = lru_cache(maxsize=8)(self._make_faults)

    def chance(self, *about: object) -> random.Random:
        """Randomness that belongs to one matter."""
        return random.Random("/".join(map(str, (self.seed, *about))))  # no secret comes from it

    def hour(self, start_ms: int) -> Iterator[Point]:
        """Every point of [start, start + 1 h)."""
        faults = self.faults(start_ms - DAY_MS, start_ms + HOUR_MS)
        for name in self.kinds:
            yield from self._readings(name, start_ms, faults)
        yield from self._states(start_ms, faults)
        yield from self._platform(start_ms)
        for step in self._steps(start_ms, faults):
            if start_ms <= step.at_ns // RAW_NS < start_ms + HOUR_MS:
                yield step

    def _readings(self, name: str, start_ms: int, faults: Sequence[Fault]) -> Iterator[Point]:
        """Of every device of a kind, and how many are in which group."""
        kind, broken = self.kinds[name], defaultdict[str, list[Fault]](list)
        for one in faults:
            if one.kind == name and one.until_ms > start_ms:
                broken[one.device_id].append(one)
        groups, counted = counted_groups(name), defaultdict[int, Counter[str]](Counter)
        step_ms = round(kind.reading_interval_s * 1000)
        for index, device_id in enumerate(self.devices[name]):
            chance = self.chance("readings", device_id, start_ms)
            for at_ms in range(start_ms + index * 37 % step_ms, start_ms + HOUR_MS, step_ms):
                now = next((one.key for one in broken[device_id] if one.from_ms <= at_ms < one.until_ms), "")
                if now == "silent":
                    continue
                fields = readings.reading(kind, index, at_ms + ZONE_MS, now, chance)
                if "call_state" in fields and index == 0 and _calling(at_ms):
                    fields["call_state"] = "attended"
                for minute in range(at_ms // MINUTE_MS, (at_ms + step_ms) // MINUTE_MS):
                    counted[minute].update(key for key, group in groups.items() if is_in(group, fields))
                fields["message_seq"] = at_ms // step_ms
                yield Point(name, device_id, at_ms * RAW_NS + 1, fields)
        for minute in range(start_ms // MINUTE_MS, (start_ms + HOUR_MS) // MINUTE_MS):
            for key in groups:
                tags = {"kind": name, "group": key}
                yield point(series.GROUP_STATE, 0, minute * MINUTE_MS, tags, {"devices": counted[minute][key]})

    # --- what breaks -----------------------------------------------------------------------------------------------

    def faults(self, from_ms: int, until_ms: int) -> list[Fault]:
        """All that hold at some time of [from, until)."""
        days = range(from_ms // DAY_MS - 1, until_ms // DAY_MS + 1)
        return [
            one for day in days for one in self._faults_on(day) if one.from_ms < until_ms and one.until_ms > from_ms
        ]

    def _make_faults(self, day: int) -> list[Fault]:
        found: list[Fault] = []
        for name in self.kinds:
            found += self._shown_faults(name, day)
            keys = [(alarm.key, str(alarm.priority)) for alarm in devices.role(name, "rules").ALARMS]
            for device_id in self.devices[name]:
                chance = self.chance("fault", device_id, day)
                if chance.random() < FAULTS_PER_DAY:
                    key, priority = chance.choice([*keys, ("silent", "medium")])
                    start_ms = day * DAY_MS + chance.randrange(DAY_MS)
                    length_ms = round(chance.lognormvariate(math.log(50), 0.9)) * MINUTE_MS
                    found.append(
                        Fault(device_id, name, key, priority, start_ms, start_ms + min(length_ms, DAY_MS - MINUTE_MS))
                    )
        return found

    def _shown_faults(self, name: str, day: int) -> Iterator[Fault]:
        priorities = {alarm.key: str(alarm.priority) for alarm in devices.role(name, "rules").ALARMS}
        for key, from_h, until_h in SHOWN_FAULTS.get(name, ()):
            edges = [_local_ms(day, hour) for hour in (from_h, until_h)]
            yield Fault(self.devices[name][0], name, key, priorities[key], edges[0], edges[1])

    # --- samples ---------------------------------------------------------------------------------------------------

    def _states(self, start_ms: int, faults: Sequence[Fault]) -> Iterator[Point]:
        for at_ms in range(start_ms, start_ms + HOUR_MS, MINUTE_MS):
            for name in self.kinds:
                now = [one for one in faults if one.kind == name and one.from_ms <= at_ms < one.until_ms]
                total, silent = len(self.devices[name]), sum(one.key == "silent" for one in now)
                high = sum(one.priority == "high" for one in now)
                fields = {
                    "devices": total, "online": total - silent, "silent": silent, "reporting": total - silent,
                    "out_of_service": 0, "availability_percent": round(100 * (total - silent - high) / total, 2),
                    "alarms_open": len(now), "alarms_hidden": 0,
                    "calls_open": int(name == "nursing_room" and _calling(at_ms)),
                    "orders_open": len(now),
                    "alarms_unacknowledged": sum(at_ms < one.from_ms + 4 * MINUTE_MS for one in now),
                    "orders_overdue": sum(at_ms > one.from_ms + 4 * HOUR_MS for one in now),
                }  # fmt: skip
                yield point(series.FLEET_STATE, 0, at_ms, {"kind": name}, fields)
        for index, machine in enumerate(self.devices.get("meal_machine", ())):
            for at_ms in range(start_ms, start_ms + HOUR_MS, 5 * MINUTE_MS):
                left = readings.stock(index, at_ms + ZONE_MS)
                rate = 0.3 + MEALS[(at_ms + ZONE_MS) // HOUR_MS % 24] / 3
                fields = {"sellable": left, "sales_per_hour": rate, "stock_out_hours": round(left / rate, 2),
                          "first_meal_out_hours": round(left / rate / 3, 2)}  # fmt: skip
                yield point(series.MACHINE_FORECAST, 0, at_ms, {"device_id": machine}, fields)

    def _platform(self, start_ms: int) -> Iterator[Point]:
        for process in ("ingest", "dispatch", "api"):
            chance = self.chance("platform", process, start_ms)
            for at_ms in range(start_ms, start_ms + HOUR_MS, PLATFORM_STEP_MS):
                up_s, busy = (at_ms - BEGAN_MS) / 1000, 0.9 + 0.2 * chance.random()
                fields: dict[str, Any] = {"uptime_s": up_s}
                for one in series.PLATFORM.fields:
                    if one.unit == "text":
                        fields[one.name] = "flowing"
                    elif one.unit == "bool":
                        fields[one.name] = True
                    elif one.name in RATES:
                        fields[one.name] = RATES[one.name] * up_s
                    elif one.name != "uptime_s":
                        fields[one.name] = LEVELS.get(one.name, 0) * busy
                yield point(series.PLATFORM, 0, at_ms, {"process": process}, fields)

    # --- steps -----------------------------------------------------------------------------------------------------

    def _steps(self, start_ms: int, faults: Sequence[Fault]) -> Iterator[Point]:
        from cli.sample import happenings

        for fault in faults:
            yield from happenings.of_fault(fault)
        yield from self._shown(start_ms // DAY_MS)
        for earlier_ms in (start_ms - HOUR_MS, start_ms):  # what began an hour ago may still take steps
            hour = (earlier_ms + ZONE_MS) // HOUR_MS % 24
            for name, weights, per_day, make in (
                ("bike", RIDES, RIDES_PER_BIKE, happenings.ride),
                ("meal_machine", MEALS, MEALS_PER_MACHINE, happenings.purchase),
                ("nursing_room", RIDES, CALLS_PER_ROOM, happenings.call),
            ):
                for device_id in self.devices.get(name, ()):
                    chance = self.chance(name, device_id, earlier_ms)
                    for number in range(_how_many(chance, per_day * weights[hour] / sum(weights))):
                        at_ms = earlier_ms + chance.randrange(HOUR_MS)
                        yield from make(device_id, at_ms, f"{device_id}-{at_ms}-{number}", chance)
        yield from happenings.of_day(self.devices, start_ms // DAY_MS, self.chance)

    def _shown(self, day: int) -> Iterator[Point]:
        """What happens every day to the first device of its kind."""
        from cli.sample import happenings

        for bike in self.devices.get("bike", ())[:1]:
            for hour in SHOWN_RIDES:
                at_ms = _local_ms(day, hour)
                yield from happenings.ride(bike, at_ms, f"{bike}-{at_ms}-shown", self.chance("shown", at_ms))
        for room in self.devices.get("nursing_room", ())[:1]:
            for pressed_h, cleared_h in SHOWN_CALLS:
                yield from happenings.shown_call(room, _local_ms(day, pressed_h), _local_ms(day, cleared_h))


def _local_ms(day: int, hour: float) -> int:
    """A local hour of a day (after eight: the same day here and in UTC)."""
    return day * DAY_MS + round(hour * HOUR_MS) - ZONE_MS


def _calling(at_ms: int) -> bool:
    day = at_ms // DAY_MS
    return any(_local_ms(day, pressed_h) <= at_ms < _local_ms(day, cleared_h) for pressed_h, cleared_h in SHOWN_CALLS)


def _count(kind: str) -> int:
    return COUNTS.get(kind, OTHERS)


def _how_many(chance: random.Random, mean: float) -> int:
    """Poisson, by counting exponential waits."""
    count, spent = 0, chance.expovariate(1.0)
    while spent < mean:
        count, spent = count + 1, spent + chance.expovariate(1.0)
    return count
