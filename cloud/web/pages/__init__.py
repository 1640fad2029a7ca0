"""Pages for people. Each works as plain HTML with forms; scripts only add what is live."""

from fastapi import APIRouter

from cloud.web.pages import calls, desk, device, identity, me, notifications, orders, overview, roster, sign_in


def routers() -> list[APIRouter]:
    """Every page's router."""
    return [
        sign_in.router, overview.router, device.router, identity.router, calls.router,
        desk.router, orders.router, roster.router, me.router, notifications.router,
    ]  # fmt: skip
