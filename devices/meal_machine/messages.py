"""What a meal machine says and is asked to do.

Ids of purchases are 32 hexadecimal digits, made by the cloud; slots are `A1` … `H8`; lots are `L` and ten
digits (year, month, day, number of the day). Times are milliseconds since the epoch, money is integer fen.
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from fleet.messages import Command, CommandId, EpochMs, Event, Message, Reading
from fleet.units import labelled, measured

SLOTS_MAX: Final = 16
LOTS_PER_SLOT_MAX: Final = 4
BOXES_PER_SLOT_MAX: Final = 20


Slot = Annotated[str, Field(pattern=r"^[A-H][1-8]$")]
Sku = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,17}$")]
LotId = Annotated[str, Field(pattern=r"^L[0-9]{10}$")]
PurchaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

SlotStatus = Literal["ready", "jammed", "locked"]
SaleFailureReason = Literal[
    "jam", "output_not_empty", "heater_fault", "timeout", "cancelled", "power_lost", "out_of_stock", "lot_expired",
    "locked_out", "unknown",
]  # fmt: skip
RemovalReason = Literal["", "expired", "spoiled", "excursion", "miscounted"]


class Lot(Message):
    """Boxes of one delivery in one slot."""

    lot: LotId = labelled(zh="批次", en="Lot")
    expires_at: EpochMs = labelled(zh="保质期至", en="Expires at")
    count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="份数", en="Boxes")


class SlotStock(Message):
    """One slot: its meal, its price and its boxes, the earliest expiry first. `count` includes expired boxes."""

    slot: Slot = labelled(zh="货道", en="Slot")
    sku: Sku = labelled(zh="餐品", en="Meal")
    price_fen: int = measured("fen", 0, 65_535, zh="价格", en="Price")
    status: SlotStatus = labelled(zh="货道状态", en="Slot status")
    capacity_count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="容量", en="Capacity")
    count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="份数", en="Boxes")
    lots: tuple[Lot, ...] = labelled(zh="批次", en="Lots", max_length=LOTS_PER_SLOT_MAX)


class MealMachineReading(Reading):
    """Sent every 30 s and on every change. `stock_count` is what can be sold now: not expired, locked or jammed.

    A temperature is None while its probe gives no value.
    """

    chilled_celsius: float | None = measured("celsius", -40, 80, zh="冷藏温度", en="Chilled temperature")
    heater_celsius: float | None = measured("celsius", -40, 300, zh="加热器温度", en="Heater temperature")
    door_open: bool = labelled(zh="柜门打开", en="Door open")
    mains_power: bool = labelled(zh="市电", en="Mains power")
    locked_out: bool = labelled(zh="食品安全锁定", en="Locked for food safety")
    heater_fault: bool = labelled(zh="加热器故障", en="Heater fault")
    output_occupied: bool = labelled(zh="取餐口有餐", en="Box in the output")
    heating_queue_count: int = measured("count", 0, 16, zh="加热队列", en="Heating queue")
    stock_count: int = measured("count", 0, SLOTS_MAX * BOXES_PER_SLOT_MAX, zh="可售份数", en="Boxes that can be sold")
    slots: tuple[SlotStock, ...] = labelled(zh="货道库存", en="Stock by slot", max_length=SLOTS_MAX)


# --- events ------------------------------------------------------------------------------------------------------


class SaleEvent(Event):
    """One step of one sale; `command_id` is the dispense command that asked for it."""

    purchase_id: PurchaseId = labelled(zh="订单号", en="Purchase")
    command_id: CommandId = labelled(zh="指令号", en="Command")


class SaleReserved(SaleEvent):
    """A box is set aside; from here on nobody else can have it."""

    type: Literal["sale_reserved"] = "sale_reserved"
    sku: Sku = labelled(zh="餐品", en="Meal")
    slot: Slot = labelled(zh="货道", en="Slot")
    lot: LotId = labelled(zh="批次", en="Lot")


class SaleHeating(SaleEvent):
    """The heater is on for this sale."""

    type: Literal["sale_heating"] = "sale_heating"
    heating_seconds: int = measured("seconds", 0, 600, zh="加热时间", en="Heating time")


class SaleDispensing(SaleEvent):
    """The intent is stored durably and the motor of the slot is about to move."""

    type: Literal["sale_dispensing"] = "sale_dispensing"
    slot: Slot = labelled(zh="货道", en="Slot")


class SaleDelivered(SaleEvent):
    """The drop sensor saw the box fall into the output."""

    type: Literal["sale_delivered"] = "sale_delivered"
    sku: Sku = labelled(zh="餐品", en="Meal")
    slot: Slot = labelled(zh="货道", en="Slot")
    lot: LotId = labelled(zh="批次", en="Lot")


class SaleFailed(SaleEvent):
    """The sale ended without a proven delivery. `unknown`: the motor may have moved, and nothing proves a drop."""

    type: Literal["sale_failed"] = "sale_failed"
    reason: SaleFailureReason = labelled(zh="原因", en="Reason")


class LaneJammed(Event):
    """A motor met resistance; the slot sells nothing until serviced."""

    type: Literal["lane_jammed"] = "lane_jammed"
    slot: Slot = labelled(zh="货道", en="Slot")


class HeaterFault(Event):
    """The heater did not reach its temperature or overheated; the machine heats nothing until repaired."""

    type: Literal["heater_fault"] = "heater_fault"
    heater_celsius: float = measured("celsius", -40, 300, zh="加热器温度", en="Heater temperature")


class DoorOpened(Event):
    """The service door was opened."""

    type: Literal["door_opened"] = "door_opened"


class DoorClosed(Event):
    """The service door was closed."""

    type: Literal["door_closed"] = "door_closed"


class PowerLost(Event):
    """Mains power is gone; the controller goes on from its battery, or comes back later and tells."""

    type: Literal["power_lost"] = "power_lost"


class PowerRestored(Event):
    """Mains power is back."""

    type: Literal["power_restored"] = "power_restored"


class LanesLocked(Event):
    """Chilled temperature was out of its limits for too long: every slot is locked until serviced and restocked.

    It is None when the machine locked because it could not know.
    """

    type: Literal["lanes_locked"] = "lanes_locked"
    chilled_celsius: float | None = measured("celsius", -40, 80, zh="冷藏温度", en="Chilled temperature")


class LanesUnlocked(Event):
    """Serviced and restocked after a lock: the machine sells again."""

    type: Literal["lanes_unlocked"] = "lanes_unlocked"


class RestockLine(Message):
    """What a restocker found and did in one slot."""

    slot: Slot = labelled(zh="货道", en="Slot")
    sku: Sku = labelled(zh="餐品", en="Meal")
    expected_count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="应有", en="Expected")
    found_count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="实点", en="Found")
    removed_count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="取出", en="Removed")
    removed_reason: RemovalReason = labelled(zh="取出原因", en="Reason of removal")
    added_count: int = measured("count", 0, BOXES_PER_SLOT_MAX, zh="放入", en="Added")
    lot: LotId = labelled(zh="新批次", en="New lot")
    expires_at: EpochMs = labelled(zh="保质期至", en="Expires at")


class Restocked(Event):
    """A counted visit; `lot` and `expires_at` of a line tell about the boxes that were added."""

    type: Literal["restocked"] = "restocked"
    lines: tuple[RestockLine, ...] = labelled(zh="明细", en="Lines", max_length=SLOTS_MAX)


EVENTS: Final[tuple[type[Event], ...]] = (
    SaleReserved, SaleHeating, SaleDispensing, SaleDelivered, SaleFailed, LaneJammed, HeaterFault,
    DoorOpened, DoorClosed, PowerLost, PowerRestored, LanesLocked, LanesUnlocked, Restocked,
)  # fmt: skip


# --- commands ----------------------------------------------------------------------------------------------------


class Dispense(Command):
    """Reserve, heat and dispense one box, the earliest expiry first. Only a purchase may ask for it.

    It must be accepted within its lifetime; heating goes on afterwards.
    """

    roles: ClassVar[frozenset[str]] = frozenset()
    action: Literal["dispense"] = "dispense"
    purchase_id: PurchaseId = labelled(zh="订单号", en="Purchase")
    sku: Sku = labelled(zh="餐品", en="Meal")
    slot: Slot | None = labelled(zh="货道", en="Slot", default=None)


class Cancel(Command):
    """Give up a sale whose motor has not moved yet. Only the purchase's owner may ask for it."""

    roles: ClassVar[frozenset[str]] = frozenset()
    action: Literal["cancel"] = "cancel"
    purchase_id: PurchaseId = labelled(zh="订单号", en="Purchase")


class LockLane(Command):
    """Sell nothing more from one slot until serviced."""

    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["lock_lane"] = "lock_lane"
    slot: Slot = labelled(zh="货道", en="Slot")


class UnlockAfterService(Command):
    """Somebody repaired and inspected the machine: jammed and locked slots sell again.

    A food-safety lock also needs a restock.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"admin", "crew"})
    action: Literal["unlock_after_service"] = "unlock_after_service"


class SetMenu(Command):
    """Which meal a slot holds and what it costs; refused while the slot holds boxes of another meal."""

    action: Literal["set_menu"] = "set_menu"
    slot: Slot = labelled(zh="货道", en="Slot")
    sku: Sku = labelled(zh="餐品", en="Meal")
    price_fen: int = measured("fen", 1, 65_535, zh="价格", en="Price")


class Reboot(Command):
    """Restart the controller; refused while a sale is under way."""

    action: Literal["reboot"] = "reboot"


COMMANDS: Final[tuple[type[Command], ...]] = (Dispense, Cancel, LockLane, UnlockAfterService, SetMenu, Reboot)
