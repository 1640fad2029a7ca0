"""Every route × role, other people's objects, CSRF, foreign origins, and what every answer carries."""

import re

import pytest
from fastapi import APIRouter, Depends, FastAPI

from cloud.api.access import CSRF_HEADER, Role, allow, public
from cloud.web import guard
from cloud.web.shell import BODY_BYTES_MAX
from tests.web import world as worlds
from tests.web.client import client
from tests.web.world import make_world

PUBLIC = {
    "POST /api/v1/session", "GET /login", "POST /login", "GET /language/{language}", "GET /healthz", "GET /readyz",
    "GET /metrics", "GET /api/v1/openapi.json", "GET /api/v1/enrolments/authority", "POST /api/v1/enrolments",
    "GET /api/v1/enrolments/{enrolment_id}", "GET /api/v1/roster/calendar.ics", "GET /service-worker.js",
    "POST /api/v1/platform-alerts",
}  # fmt: skip
STREAM = "/api/v1/stream"  # stays open; tested on its own
EVERYBODY = {Role.EMPLOYEE, Role.CREW, Role.ADMIN}


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    made.database.close()


def _routes(world):
    for access in world.app.state.access:
        for method in sorted(access.methods - {"HEAD"}):
            if access.path != guard.STATIC_FILES:
                yield method, access


def test_exactly_these_routes_are_public(world):
    found = {f"{method} {access.path}" for method, access in _routes(world) if access.roles is None}
    assert found == PUBLIC


async def test_every_route_refuses_strangers_and_other_roles(world):
    """Judged by answers: nothing but 401 (or the login page) for strangers, nothing but 403 for other roles."""
    tried = 0
    async with client(world) as stranger:
        people = {}
        for role in ("employee", "crew", "admin"):
            async with client(world, role) as signed_in:
                people[role] = dict(signed_in.headers), dict(signed_in.cookies)
        for method, access in _routes(world):
            if access.roles is None:
                continue
            path = re.sub(r"\{[^}]+\}", "anything-1", access.path)
            stranger.cookies.clear()
            answer = await stranger.request(method, path)
            refused = answer.status_code == 401 or (
                answer.status_code == 303 and answer.headers["location"].startswith("/login?next=")
            )
            assert refused, f"stranger: {method} {path}: {answer.status_code}"
            for role, (headers, cookies) in people.items():
                if role in access.roles:
                    continue
                for name, value in cookies.items():
                    stranger.cookies.set(name, value)
                answer = await stranger.request(method, path, headers={CSRF_HEADER: headers[CSRF_HEADER]})
                assert answer.status_code == 403, f"{role}: {method} {path}: {answer.status_code}"
                stranger.cookies.clear()
                tried += 1
    assert tried > 30


async def test_every_write_with_a_cookie_needs_its_csrf_token(world):
    tried = 0
    for role in ("employee", "crew", "admin"):
        async with client(world, role) as browser:
            del browser.headers[CSRF_HEADER]
            for method, access in _routes(world):
                if method == "GET" or access.roles is None or role not in access.roles:
                    continue
                path = re.sub(r"\{[^}]+\}", "anything-1", access.path)
                answer = await browser.request(method, path)
                assert answer.status_code == 403, f"{role}: {method} {path}: {answer.status_code}"
                wrong = await browser.request(method, path, headers={CSRF_HEADER: "guess"})
                assert wrong.status_code == 403
                tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
async def test_writes_from_other_sites_are_refused_even_to_sign_in(world, headers):
    async with client(world) as browser:
        body = {"login": "crew", "password": worlds.PASSWORD}
        answer = await browser.post("/api/v1/session", json=body, headers=headers)
    assert answer.json()["code"] == "foreign_origin"
    assert "set-cookie" not in answer.headers


async def test_the_own_origin_may_write(world):
    async with client(world) as browser:
        body = {"login": "crew", "password": worlds.PASSWORD}
        answer = await browser.post("/api/v1/session", json=body, headers={"origin": "http://fleet.test"})
    assert answer.status_code == 201


async def test_employees_see_only_their_own_commands(world):
    worlds.add_device(world, "bike-001", "bike")
    for command_id, actor in (("a" * 32, "person-employee"), ("b" * 32, "person-other")):
        world.write(
            worlds.tables.command, id=command_id, device_id="bike-001", action="unlock", arguments="{}", actor=actor,
            issued_at=worlds.NOW_MS, not_after=worlds.NOW_MS, generation=1, status="sent", changed_at=worlds.NOW_MS,
        )  # fmt: skip
    async with client(world, "employee") as employee:
        assert (await employee.get(f"/api/v1/commands/{'a' * 32}")).status_code == 200
        other = await employee.get(f"/api/v1/commands/{'b' * 32}")
        missing = await employee.get(f"/api/v1/commands/{'c' * 32}")
    assert other.status_code == missing.status_code == 404
    assert set(other.json()) == set(missing.json())


# --- the start-up check ----------------------------------------------------------------------------------------


def test_a_route_without_declared_access_stops_the_start():
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), APIRouter()
    router.add_api_route("/forgotten", lambda: None)
    app.include_router(router, prefix="/api")
    with pytest.raises(RuntimeError, match="/api/forgotten"):
        guard.declared_access(app.routes)


def test_a_route_that_can_declare_nothing_stops_the_start():
    app = FastAPI()  # the framework's own documentation pages
    with pytest.raises(RuntimeError, match=r"/openapi\.json"):
        guard.declared_access(app.routes)


def test_a_route_cannot_be_both_public_and_protected():
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/both", lambda: None, dependencies=[Depends(allow("admin")), Depends(public("why"))])
    with pytest.raises(RuntimeError, match="not both"):
        guard.declared_access(app.routes)


# --- what every answer carries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/login", "/healthz", "/api/v1/nothing", "/nothing", "/api/v1/fleet", "/static/fleet.css"]
)
async def test_every_answer_carries_the_security_headers(world, path):
    async with client(world) as browser:
        answer = await browser.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"]
    assert answer.headers["x-request-id"]


async def test_errors_are_problems_with_type_title_status_and_code(world):
    async with client(world, "crew") as browser:
        missing = await browser.get("/api/v1/devices/bike-999")
        invalid = await browser.get("/api/v1/devices", params={"limit": 0})
        method = await browser.put("/api/v1/fleet")
    for answer, status in ((missing, 404), (invalid, 422), (method, 405)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "code", "detail", "instance"} <= set(answer.json())


async def test_an_internal_error_says_nothing_about_the_inside(world):
    async def fails():
        raise RuntimeError("secret detail")

    world.app.add_api_route("/api/v1/fails", fails)
    async with client(world) as browser:
        answer = await browser.get("/api/v1/fails", headers={"x-request-id": "my-request-1"})
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "my-request-1"
    assert answer.headers["content-security-policy"]
    assert "secret" not in answer.text


async def test_large_bodies_are_refused_announced_or_not(world):
    async def pieces():
        for _ in range(3):
            yield b"x" * (BODY_BYTES_MAX // 2)

    async with client(world) as browser:
        announced = await browser.post("/api/v1/session", content=b"x" * (BODY_BYTES_MAX + 1))
        streamed = await browser.post("/api/v1/session", content=pieces())
    assert announced.status_code == streamed.status_code == 413


async def test_operations_routes(world):
    async with client(world) as browser:
        assert (await browser.get("/healthz")).text == "ok\n"
        assert (await browser.get("/readyz")).json()["ready"] is True
        metrics = (await browser.get("/metrics")).text
        document = (await browser.get("/api/v1/openapi.json")).json()

    async def broken():
        return {"broker": "not connected", "sql": "ok"}

    world.app.state.ready = broken
    async with client(world) as browser:
        assert (await browser.get("/readyz")).status_code == 503
    assert 'fleet_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in metrics
    assert "/api/v1/devices/{device_id}/series" in document["paths"]
    assert "/login" not in document["paths"]
