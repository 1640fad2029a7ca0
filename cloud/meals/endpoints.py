"""Meal machines and purchases over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from cloud.api.access import Person, allow
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.meals import views
from cloud.meals.lifecycle import SaleState
from cloud.meals.schemas import MachineList, PurchaseAnswer, PurchaseBody, PurchaseList
from cloud.meals.service import PAYMENT_REQUIRED, WAIT_S_MAX, MealService
from cloud.wallet.idempotency import IdempotencyKey

router = APIRouter(prefix="/api/v1", tags=["meals"])

Meals = Annotated[MealService, Depends(service(MealService))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]
Employee = Annotated[Person, Depends(allow("employee"))]
Buyer = Annotated[Person, Depends(allow("employee", "admin"))]


@router.get("/machines")
async def machines(meals: Meals, _person: Anybody) -> MachineList:
    """Every machine with what it offers now: price, expiry, allergens, honest stock."""
    return MachineList(machines=[views.machine(menu) for menu in await meals.menus()])


@router.post(
    "/purchases",
    status_code=201,
    response_model=PurchaseAnswer,
    responses={402: {"description": "Not enough money in the wallet"}, 409: {"description": "Not possible now"}},
)
async def buy(body: PurchaseBody, key: IdempotencyKey, meals: Meals, person: Employee) -> Response:
    """Buy one box. Follow it at the address in `Location`; a repeat with the same key gets the first answer again."""
    answer, repeated = await meals.buy(body, key, person)
    if answer.status == PAYMENT_REQUIRED:
        price = answer.body["price_fen"]
        raise ProblemError(
            PAYMENT_REQUIRED, "insufficient_funds", "Not enough money",
            f"The meal costs {price} fen; top up your wallet and buy again with a new key.",
            purchase_id=answer.body["id"],
        )  # fmt: skip
    headers = {"location": f"/api/v1/purchases/{answer.body['id']}"}
    if repeated:
        headers["idempotency-replayed"] = "true"
    return JSONResponse(PurchaseAnswer.model_validate(answer.body).model_dump(mode="json"), answer.status, headers)


@router.get("/purchases")
async def purchases(
    meals: Meals,
    person: Buyer,
    before: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> PurchaseList:
    """The asker's purchases, newest first (an admin sees all); `before` is `next_before` of the page before."""
    rows = await meals.purchases(person, before, limit + 1)
    return PurchaseList(
        purchases=[views.purchase(row) for row in rows[:limit]],
        next_before=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.get("/purchases/{purchase_id}")
async def one_purchase(
    purchase_id: str,
    meals: Meals,
    person: Buyer,
    wait_s: Annotated[float, Query(ge=0, le=WAIT_S_MAX, description="wait so long for its end")] = 0.0,
    state: Annotated[SaleState | None, Query(description="wait only until it is no longer in this state")] = None,
) -> PurchaseAnswer:
    """How far a purchase came."""
    return views.purchase(*await meals.purchase(purchase_id, person, wait_s, state.value if state else None))


@router.post("/purchases/{purchase_id}/cancel", status_code=202)
async def cancel(purchase_id: str, meals: Meals, person: Employee) -> PurchaseAnswer:
    """Give up a purchase before the motor moves; the refund follows the machine's answer."""
    await meals.cancel(purchase_id, person)
    return views.purchase(*await meals.purchase(purchase_id, person))
