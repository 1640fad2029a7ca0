"""What one device reads at one moment. Times are local, so that days and meals fall where people have them."""

import math
import random
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from fleet.kind import Kind

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
BOXES: Final = 80
SOUTH, WEST = 38.845, 121.49
DEGREES: Final = 0.04
"""The zone: about 4.4 by 3.5 km."""


def reading(kind: Kind, index: int, local_ms: int, fault: str, chance: random.Random) -> dict[str, Any]:
    """Fields of the kind's reading, and of `fault` (an alarm's key) what it does to them."""
    own = _KINDS.get(kind.name)
    return own(index, local_ms, fault, chance) if own else {name: make() for name, make in _plain(kind).items()}


def stock(index: int, local_ms: int) -> int:
    """Boxes of a machine: filled at ten and at four, sold at noon and in the evening."""
    hour = local_ms / HOUR_MS % 24
    since = (hour - 10) % 24 if not 10 <= hour < 16 else hour - 10
    sold = 62 / (1 + math.exp(-(since - 2.2) * 2)) + since * 0.7 + index % 7
    return max(0, round(BOXES - sold))


def _day(local_ms: int) -> float:
    """-1 before dawn, 1 in the afternoon."""
    return math.sin((local_ms / HOUR_MS % 24 - 9) / 24 * 2 * math.pi)


def _bike(index: int, local_ms: int, fault: str, chance: random.Random) -> dict[str, Any]:
    hour = local_ms // HOUR_MS % 24
    riding = not fault and chance.random() < (0.08 if 7 <= hour < 21 else 0.005)
    age_h = (local_ms / HOUR_MS + index * 7.3) % 120
    place = math.sin(index * 12.9898) * 43758.5453 % 1, math.sin(index * 78.233 + local_ms // DAY_MS) * 24634.63 % 1
    battery = 6.0 if fault == "battery_critical" else 100.0 - age_h * 0.68
    return {
        "battery_percent": round(battery, 1), "latitude": round(SOUTH + place[0] * DEGREES, 6),
        "longitude": round(WEST + place[1] * DEGREES * 1.6, 6), "accuracy_metres": round(3 + 4 * chance.random(), 1),
        "speed_metres_per_second": round(2 + 3 * chance.random(), 1) if riding else 0.0,
        "lock_state": "jammed" if fault == "lock_jammed" else "unlocked" if riding else "locked",
        "tilt_degrees": 82.0 if fault == "fallen" else round(4 + 6 * chance.random(), 1),
        "signal_dbm": float(-112 if fault == "signal_weak" else round(-75 - 15 * chance.random())),
        "odometer_metres": float(local_ms // HOUR_MS % 3_000 * 30 + index * 100),
        "temperature_celsius": round((61 if fault == "battery_hot" else 14 + 6 * _day(local_ms)) + chance.random(), 1),
        "fix_age_seconds": 0.0,
    }  # fmt: skip


def _machine(index: int, local_ms: int, fault: str, chance: random.Random) -> dict[str, Any]:
    hour = local_ms / HOUR_MS % 24
    warm = {"chilled_warm": 6.0, "chilled_unsafe": 9.0, "chilled_frozen": -6.0}.get(fault, 0.0)
    heating = chance.random() < (0.5 if 11 <= hour < 13 or 17 <= hour < 19 else 0.06)
    return {
        "chilled_celsius": round(3.2 + 0.5 * math.sin(local_ms / 900_000 + index) + 0.4 * chance.random() + warm, 1),
        "heater_celsius": round((135 if fault == "heater_hot" else 88 if heating else 41) + 4 * chance.random(), 1),
        "door_open": fault == "door_open_long", "mains_power": fault != "mains_lost",
        "locked_out": fault in {"locked_out", "chilled_unsafe"}, "heater_fault": fault == "heater_fault",
        "output_occupied": fault == "output_blocked", "heating_queue_count": int(heating) * (1 + index % 2),
        "stock_count": 0 if fault == "stock_out" else stock(index, local_ms), "slots_count": 8,
    }  # fmt: skip


def _room(index: int, local_ms: int, fault: str, chance: random.Random) -> dict[str, Any]:
    hour = local_ms // HOUR_MS % 24
    slot = (local_ms // 1_500_000 * 2654435761 + index * 40503) % 1000
    occupied = slot < (190 if 9 <= hour < 18 else 12)
    warm = {"fridge_warm": 5.0, "fridge_hot": 9.0, "fridge_freezing": -5.0}.get(fault, 0.0)
    return {
        "call_state": "idle", "button_link_ok": fault != "button_disconnected",
        "button_battery_percent": 12 if fault == "button_battery_low" else 100 - (index * 13 + local_ms // DAY_MS) % 70,
        "cord_in_place": fault != "cord_removed", "occupied": occupied,
        "fridge_celsius": round(2.9 + 0.6 * math.sin(local_ms / 1_200_000 + index) + 0.3 * chance.random() + warm, 1),
        "fridge_door_open": fault == "fridge_door_open" or (occupied and slot % 19 == 0),
        "sterilizer_state": "aborted" if fault == "sterilizer_aborted" else "running" if slot % 31 == 0 else "idle",
        "sterilizer_door_open": fault == "sterilizer_door_open", "lamp_hours": float((5210 + index * 31) % 7000),
        "air_celsius": round((31 if fault == "room_too_warm" else 23.5) + 1.2 * _day(local_ms) + chance.random(), 1),
        "air_relative_humidity_percent": round(44 + 6 * _day(local_ms) + index % 9, 1),
        "mains_power": fault != "mains_lost", "backup_battery_percent": 18 if fault == "backup_battery_low" else 100,
    }  # fmt: skip


_KINDS: Final[Mapping[str, Callable[[int, int, str, random.Random], dict[str, Any]]]] = {
    "bike": _bike, "meal_machine": _machine, "nursing_room": _room,
}  # fmt: skip


@lru_cache
def _plain(kind: Kind) -> dict[str, Callable[[], Any]]:
    """A kind that nobody described here: every number in the middle of what its reading allows, all flags off."""
    made: dict[str, Callable[[], Any]] = {}
    for name, field in kind.reading.model_fields.items():
        choices = get_args(field.annotation)
        plain = next((one for one in choices if one in {int, float, bool}), field.annotation)
        if get_origin(field.annotation) is Literal:
            made[name] = partial(str, choices[0])
        elif plain is bool:
            made[name] = bool
        elif plain in {int, float} and name != "at":
            bounds = [getattr(one, edge) for one in field.metadata for edge in ("ge", "le") if hasattr(one, edge)]
            middle = sum(bounds) / max(1, len(bounds))
            made[name] = partial(round, middle) if plain is int else partial(float, middle)
        elif isinstance(plain, type) and issubclass(plain, (str, BaseModel)):
            continue
    return made
