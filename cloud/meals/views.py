"""Rows and menus into answers."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from cloud.meals.lifecycle import FINAL, SaleState
from cloud.meals.menu import Menu
from cloud.meals.schemas import MachineAnswer, OfferAnswer, PurchaseAnswer, StepAnswer
from devices.meal_machine.catalogue import title_of


def purchase(row: Row[Any], steps: Sequence[Row[Any]] = ()) -> PurchaseAnswer:
    """A purchase for its owner."""
    title, state = title_of(row.sku), SaleState(row.state)
    return PurchaseAnswer(
        id=row.id,
        device_id=row.device_id,
        sku=row.sku,
        title_zh=title.zh,
        title_en=title.en,
        price_fen=row.price_fen,
        state=state,
        final=state in FINAL,
        reason=row.reason,
        asked_at=row.asked_at,
        paid_at=row.paid_at,
        delivered_at=row.delivered_at,
        refunded_at=row.refunded_at,
        steps=[StepAnswer.model_validate(step, from_attributes=True) for step in steps],
    )


def machine(menu: Menu) -> MachineAnswer:
    """A machine for buyers."""
    return MachineAnswer(
        device_id=menu.device_id,
        name=menu.name,
        latitude=menu.latitude,
        longitude=menu.longitude,
        obstacle=menu.obstacle,
        as_of=menu.as_of,
        waiting_count=menu.waiting_count,
        menu=[
            OfferAnswer(
                sku=offer.sku,
                title_zh=offer.title.zh,
                title_en=offer.title.en,
                allergens_zh=offer.allergens.zh,
                allergens_en=offer.allergens.en,
                price_fen=offer.price_fen,
                stock_count=offer.stock_count,
                expires_at=offer.expires_at,
            )
            for offer in menu.offers
        ],
    )
