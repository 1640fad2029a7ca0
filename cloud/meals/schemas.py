"""What the API says and accepts about machines and purchases."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud.meals.lifecycle import SaleState
from cloud.meals.menu import Obstacle


class PurchaseBody(BaseModel):
    """One box of one meal from one machine."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device_id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    sku: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,17}$")]


class StepAnswer(BaseModel):
    """One step of a purchase's history."""

    event: str
    before: str
    after: str
    at: int


class PurchaseAnswer(BaseModel):
    """A purchase. `reason` says why it failed; `final` that nothing more will happen; times in business ms."""

    id: str
    device_id: str
    sku: str
    title_zh: str
    title_en: str
    price_fen: int
    state: SaleState
    final: bool
    reason: str
    asked_at: int
    paid_at: int | None
    delivered_at: int | None
    refunded_at: int | None
    steps: list[StepAnswer] = []


class PurchaseList(BaseModel):
    """One page of purchases, newest first; `next_before` is None on the last one."""

    purchases: list[PurchaseAnswer]
    next_before: str | None


class OfferAnswer(BaseModel):
    """One meal at one machine; `stock_count` is what is left after everything sold, `expires_at` of the next box."""

    sku: str
    title_zh: str
    title_en: str
    allergens_zh: str
    allergens_en: str
    price_fen: int
    stock_count: int
    expires_at: int | None


class MachineAnswer(BaseModel):
    """A machine; it sells only while `obstacle` is empty. `as_of` is the time of the reading behind it."""

    device_id: str
    name: str
    latitude: float | None
    longitude: float | None
    obstacle: Obstacle
    as_of: int | None
    waiting_count: int
    menu: list[OfferAnswer]


class MachineList(BaseModel):
    """Every machine in service."""

    machines: list[MachineAnswer]
