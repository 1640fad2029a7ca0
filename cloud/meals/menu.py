"""What a machine offers now, from its twin: price, expiry, allergens and honest stock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError
from sqlalchemy import Row

from devices.meal_machine.catalogue import allergens_of, title_of
from devices.meal_machine.kind import KIND
from devices.meal_machine.messages import MealMachineReading, SlotStock
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.kind import Text

Obstacle = Literal["", "offline", "no_data", "locked_out", "heater_fault", "power_lost", "door_open"]
LEFT_TO_EAT_MS: Final = 10 * 60_000
"""A box is offered only if it outlasts the wait and a meal."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One meal at one machine. `slot` is set if only that slot sells it at this price."""

    sku: str
    title: Text
    allergens: Text
    price_fen: int
    stock_count: int
    expires_at: int | None
    slot: str | None


@dataclass(frozen=True, slots=True)
class Menu:
    """A machine as a buyer sees it; with an `obstacle` it sells nothing now."""

    device_id: str
    name: str
    latitude: float | None
    longitude: float | None
    obstacle: Obstacle
    as_of: int | None
    waiting_count: int
    offers: tuple[Offer, ...]


def menu_of(row: Row[Any], promised: Mapping[tuple[str, str], int], now_ms: int, delay_s: float = 0.0) -> Menu:
    """The menu of one machine.

    Args:
        row: as `repository.machines` returns it.
        promised: boxes sold and not yet set aside by the machine, by (machine, meal).
        now_ms: business ms.
        delay_s: business seconds that a reading may need to reach its twin.
    """
    reading = _reading_of(row.state)
    head = (row.device_id, row.name or row.device_id, row.latitude, row.longitude)
    if reading is None:
        return Menu(*head, "no_data", None, 0, ())
    heard_since = now_ms - round((KIND.silent_after_s + delay_s) * MILLISECONDS_PER_SECOND)
    offers = tuple(_offers(reading, row.device_id, promised, now_ms))
    obstacle = _obstacle(reading, online=bool(row.online) and row.last_heard_at >= heard_since)
    return Menu(*head, obstacle, reading.at, reading.heating_queue_count, offers)


def _reading_of(state: str | None) -> MealMachineReading | None:
    reading = json.loads(state).get("reading") if state else None
    if reading is None:
        return None
    try:
        return MealMachineReading.model_validate_json(json.dumps(reading))
    except ValidationError:  # an older release's twin: the next reading replaces it
        return None


def _obstacle(reading: MealMachineReading, *, online: bool) -> Obstacle:
    if not online:
        return "offline"
    if reading.locked_out:
        return "locked_out"
    if not reading.mains_power:
        return "power_lost"
    if reading.heater_fault:
        return "heater_fault"
    return "door_open" if reading.door_open else ""


def _offers(
    reading: MealMachineReading, device_id: str, promised: Mapping[tuple[str, str], int], now_ms: int
) -> list[Offer]:
    by_sku: dict[str, list[SlotStock]] = {}
    for slot in reading.slots:
        by_sku.setdefault(slot.sku, []).append(slot)
    offers = []
    for sku, slots in sorted(by_sku.items()):
        fresh = [
            (lot.expires_at, slot.slot, slot.price_fen, lot.count)
            for slot in slots
            if slot.status == "ready" and not reading.locked_out
            for lot in slot.lots
            if lot.count and lot.expires_at > now_ms + LEFT_TO_EAT_MS
        ]
        first = min(fresh, default=None)
        one_price = len({slot.price_fen for slot in slots}) == 1
        price_fen = first[2] if first else slots[0].price_fen
        count = sum(item[3] for item in fresh if one_price or (first is not None and item[1] == first[1]))
        offers.append(
            Offer(
                sku=sku,
                title=title_of(sku),
                allergens=allergens_of(sku),
                price_fen=price_fen,
                stock_count=max(0, count - promised.get((device_id, sku), 0)),
                expires_at=first[0] if first else None,
                slot=None if one_price or first is None else first[1],
            )
        )
    return offers
