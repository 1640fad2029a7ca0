"""The boxes inside a machine: what its controller believes, and what is truly there."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from devices.meal_machine import messages
from devices.meal_machine.catalogue import MEALS
from fleet.messages import Reason

SLOT_NAMES: Final = tuple(row + column for row in "ABCD" for column in "1234")
SLOT_CAPACITY: Final = 5
SHELF_LIFE_MS: Final = 48 * 3_600_000


@dataclass
class Lot:
    lot: str
    expires_at: int
    count: int


@dataclass
class Slot:
    """`spoiled` boxes are inside, can't be sold, and the controller knows; of `hidden` ones it does not know."""

    name: str
    sku: str
    price_fen: int
    lots: list[Lot] = field(default_factory=list)
    status: messages.SlotStatus = "ready"
    spoiled: int = 0
    hidden: int = 0
    blocked: bool = False
    """The pusher can't move, whatever the controller believes."""

    @property
    def believed_count(self) -> int:
        return sum(lot.count for lot in self.lots) + self.spoiled

    @property
    def true_count(self) -> int:
        return self.believed_count + self.hidden

    def sellable(self, now_ms: int) -> list[Lot]:
        """Lots with boxes that may be sold now, the earliest expiry first; empty unless the slot is ready."""
        if self.status != "ready":
            return []
        return sorted(
            (lot for lot in self.lots if lot.count and lot.expires_at > now_ms), key=lambda lot: lot.expires_at
        )

    def put_back(self, lot_id: str, expires_at: int) -> None:
        """One reserved box was not touched after all."""
        self.add(lot_id, expires_at, 1)

    def add(self, lot_id: str, expires_at: int, count: int) -> None:
        for lot in self.lots:
            if lot.lot == lot_id:
                lot.count += count
                return
        self.lots.append(Lot(lot_id, expires_at, count))
        self.lots.sort(key=lambda lot: lot.expires_at)

    def as_message(self) -> messages.SlotStock:
        lots = [lot for lot in self.lots if lot.count][: messages.LOTS_PER_SLOT_MAX]
        return messages.SlotStock(
            slot=self.name, sku=self.sku, price_fen=self.price_fen, status=self.status, capacity_count=SLOT_CAPACITY,
            count=sum(lot.count for lot in lots),
            lots=tuple(messages.Lot(lot=lot.lot, expires_at=lot.expires_at, count=lot.count) for lot in lots),
        )  # fmt: skip


def lot_id_of(now_ms: int, number: int) -> str:
    """Lot of a delivery: the UTC day and a number within it."""
    return f"L{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%d}{number % 100:02}"


def standard_slots() -> dict[str, Slot]:
    """The delivery state: every meal in two slots, all of them empty."""
    return {
        name: Slot(name, MEALS[index % len(MEALS)].sku, MEALS[index % len(MEALS)].price_fen)
        for index, name in enumerate(SLOT_NAMES)
    }


def choose(slots: dict[str, Slot], sku: str, wanted_slot: str | None, now_ms: int) -> tuple[Slot, Lot] | Reason:
    """The box to sell, earliest expiry first; or why there is none."""
    candidates = [slot for slot in slots.values() if slot.sku == sku and wanted_slot in (None, slot.name)]
    if not candidates:
        return "invalid_arguments" if wanted_slot else "out_of_stock"
    found = [(lot.expires_at, slot.name, slot, lot) for slot in candidates for lot in slot.sellable(now_ms)]
    if found:
        _, _, slot, lot = min(found, key=lambda item: item[:2])
        return slot, lot
    holding = [slot for slot in candidates if any(lot.count for lot in slot.lots)]
    if not holding:
        return "out_of_stock"
    if all(slot.status != "ready" for slot in holding):
        return "jam" if any(slot.status == "jammed" for slot in holding) else "locked_out"
    return "lot_expired"


def restock_slot(slot: Slot, now_ms: int, lot_id: str, wanted: int, *, excursion: bool) -> messages.RestockLine:
    """Count a slot, take out what can't be sold, add up to `wanted` boxes of the new lot."""
    expected, found = slot.believed_count, slot.true_count
    expired = sum(lot.count for lot in slot.lots if lot.expires_at <= now_ms)
    removed_reason: messages.RemovalReason = ""
    if excursion:
        removed, slot.lots, removed_reason = found, [], "excursion" if found else ""
    else:
        removed = expired + slot.spoiled + slot.hidden
        slot.lots = [lot for lot in slot.lots if lot.count and lot.expires_at > now_ms]
        if removed:
            removed_reason = "expired" if expired else "spoiled" if slot.spoiled else "miscounted"
    slot.spoiled = slot.hidden = 0
    room = SLOT_CAPACITY - slot.believed_count
    if len(slot.lots) >= messages.LOTS_PER_SLOT_MAX and all(lot.lot != lot_id for lot in slot.lots):
        room = 0  # the controller keeps so many lots apart, and mixing them would lose an expiry
    added = max(0, min(room, wanted))
    expires_at = (now_ms + SHELF_LIFE_MS) // 1000 * 1000
    if added:
        slot.add(lot_id, expires_at, added)
    return messages.RestockLine(
        slot=slot.name, sku=slot.sku, expected_count=expected, found_count=found, removed_count=removed,
        removed_reason=removed_reason, added_count=added, lot=lot_id, expires_at=expires_at,
    )  # fmt: skip
