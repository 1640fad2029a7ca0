"""What waits for those on duty: calls and alarms, and work orders."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from cloud.web.pages.base import OnDuty, page, read_models

router = APIRouter(include_in_schema=False)


@router.get("/alarms", response_class=HTMLResponse)
async def alarms(request: Request, person: OnDuty) -> Response:
    """Calls first, then alarms."""
    return await page(request, "alarms.html", person, alarms=await read_models(request).open_alarms())


@router.get("/orders", response_class=HTMLResponse)
async def orders(request: Request, person: OnDuty) -> Response:
    """One's own orders, then all others."""
    return await page(request, "orders.html", person, orders=await read_models(request).open_orders())
