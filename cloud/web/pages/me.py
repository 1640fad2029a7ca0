"""What employees come for: a bike, a meal, their wallet."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from cloud.api.access import Person
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.meals import views as meal_views
from cloud.meals.schemas import PurchaseBody
from cloud.meals.service import PAYMENT_REQUIRED, MealService
from cloud.rides.schemas import RideAnswer
from cloud.rides.service import RideService
from cloud.wallet.service import WalletService
from cloud.web.pages.base import Employee, go_to, page, services_of

router = APIRouter(include_in_schema=False)

Rides = Annotated[RideService, Depends(service(RideService))]
Meals = Annotated[MealService, Depends(service(MealService))]
BIKES_SHOWN_MAX = 300
PURCHASES_SHOWN = 3
HEATING_S = 75
"""What a meal needs at most on an ordinary machine; the countdown is honest about being an estimate."""


@router.get("/me", response_class=HTMLResponse)
async def me(
    request: Request,
    person: Employee,
    machine: Annotated[str, Query(max_length=32)] = "",
    bike: Annotated[str, Query(max_length=32)] = "",
) -> Response:
    """The page; `bike` and `machine` come from the codes on the devices."""
    return await _me_page(request, person, machine=machine, bike=bike)


@router.post("/me/rides")
async def unlock(
    request: Request, rides: Rides, person: Employee, device_id: Annotated[str, Form(max_length=32)] = ""
) -> Response:
    """The form that unlocks a bike."""
    code = device_id.strip().lower()
    try:
        await rides.ask(code, person)
    except ProblemError as problem:
        return await _me_page(request, person, bike=code, problem=problem)
    return go_to("/me?notice=ride_asked#ride")


@router.post("/me/purchases")
async def buy(
    request: Request,
    meals: Meals,
    person: Employee,
    device_id: Annotated[str, Form(max_length=32)],
    sku: Annotated[str, Form(max_length=32)],
    key: Annotated[str, Form(pattern=r"^[A-Za-z0-9_-]{8,64}$")],
) -> Response:
    """The button of a meal. The key was made with the page, so a second press buys nothing."""
    try:
        answer, _ = await meals.buy(PurchaseBody(device_id=device_id, sku=sku), key, person)
        if answer.status == PAYMENT_REQUIRED:
            raise ProblemError(PAYMENT_REQUIRED, "insufficient_funds", "Not enough money")
    except ValidationError:
        return await _me_page(request, person, problem=ProblemError(422, "invalid_input", "Input not valid"))
    except ProblemError as problem:
        return await _me_page(request, person, machine=device_id, problem=problem)
    return go_to(f"/me?machine={device_id}&notice=purchase_made#purchases")


@router.post("/me/purchases/{purchase_id}/cancel")
async def cancel(request: Request, purchase_id: str, meals: Meals, person: Employee) -> Response:
    """Give up a meal that is not yet coming out."""
    try:
        await meals.cancel(purchase_id, person)
    except ProblemError as problem:
        return await _me_page(request, person, problem=problem)
    return go_to("/me#purchases")


async def _me_page(
    request: Request, person: Person, *, machine: str = "", bike: str = "", problem: ProblemError | None = None
) -> Response:
    services = services_of(request)
    balance_fen, _ = await services.get(WalletService).wallet(person.id, None, 1)
    rides = services.get(RideService)
    rows = await rides.rides(person, None, 1)
    meals = services.get(MealService)
    machines = [meal_views.machine(menu) for menu in await meals.menus()]
    latest = await meals.purchases(person, None, PURCHASES_SHOWN)
    purchases = [meal_views.purchase(*await meals.purchase(row.id, person)) for row in latest]
    return await page(
        request,
        "me.html",
        person,
        problem,
        path="/me",
        balance_fen=balance_fen,
        ride=RideAnswer.model_validate(rows[0], from_attributes=True) if rows else None,
        bikes=[device_id for device_id, _ in await rides.rentable_bikes(BIKES_SHOWN_MAX)],
        wanted_bike=bike,
        machines=machines,
        machine=next((one for one in machines if one.device_id == machine), None),
        purchases=purchases,
        heating_s=HEATING_S,
        keys=secrets.token_urlsafe,
    )
