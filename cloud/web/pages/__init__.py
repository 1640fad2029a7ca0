"""Pages for people. Each works as plain HTML with forms; scripts only add what is live."""

from fastapi import APIRouter

from cloud.web.pages import desk, device, identity, me, overview, sign_in


def routers() -> list[APIRouter]:
    """Every page's router."""
    return [sign_in.router, overview.router, device.router, identity.router, desk.router, me.router]
