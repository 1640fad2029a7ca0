"""The HTTP application over a real SQLite, with a lane that answers at once: what tests of those on duty need."""

import secrets
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import select

from cloud.alarms.maintenance import MaintenanceService
from cloud.alarms.service import AlarmService
from cloud.calls.service import CallService
from cloud.dispatch.planner import Dispatch
from cloud.incidents.service import IncidentService
from cloud.model import AlarmChange, CallChange, Decisions, DeviceLane, Intent, NeedChange
from cloud.ports import IntentRefusedError
from cloud.rules import acts, hiding
from cloud.rules.desk import AlarmStatus, Desk
from cloud.tables import alarm, audit, call
from cloud.work_orders.service import WorkOrderService
from fleet.incident import CALL, AlarmState, AlarmView, CallEvent, CallState
from tests.web.world import PASSWORD, World, make_world

ROLES = ("employee", "crew", "admin")


class Lane:
    """`LaneIntents` that decides as the rules do and lets dispatch write it."""

    def __init__(self, world: World, definitions: dict[str, Any]) -> None:
        self.world = world
        self.definitions = definitions
        self.desks: dict[str, Desk] = {}
        self.submitted: list[tuple[str, str, str, dict[str, Any]]] = []

    async def submit(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.submitted.append((device_id, name, actor, arguments))
        at = self.world.clock.now_ms()
        decisions = Decisions()
        if name == "acknowledge_call":
            row = self.row(call, arguments["call_id"])
            before = CallState(row.state)
            if not CALL.allows(before, CallEvent.ACKNOWLEDGE):
                raise IntentRefusedError(f"this call is already {before.value}")
            after = CALL.next(before, CallEvent.ACKNOWLEDGE)
            decisions.calls.append(CallChange(row.id, device_id, row.kind, before, after, at, actor=actor))
        else:
            act = acts.ACTS.get(name)
            if act is None:
                raise IntentRefusedError(f"unknown act {name!r}")
            lane = self.lane_of(device_id)
            answer = act(lane, self.definitions, Intent(f"intent-{len(self.submitted)}", device_id, name, actor,
                                                        arguments, at), at, decisions)  # fmt: skip
            hiding.review(lane, self.definitions, at, decisions, actor)
            self.decide(decisions)
            return answer
        self.decide(decisions)
        return {}

    def lane_of(self, device_id: str) -> DeviceLane:
        """The device's lane, its desk as the rows of its alarms say."""
        desk = self.desks.setdefault(device_id, Desk())
        query = select(alarm).where(alarm.c.device_id == device_id)
        for row in self.world.database.read_here(lambda tx: tx.execute(query).all()):
            status = desk.alarms.setdefault(row.key, AlarmStatus())
            status.state, status.alarm_id, status.activated_at = AlarmState(row.state), row.id, row.activated_at
            status.view, status.condition = AlarmView(row.view), row.state in {"unacknowledged", "acknowledged"}
            kind = row.kind
        return DeviceLane(device_id, kind if desk.alarms else "bike", None, desk)

    def row(self, table: Any, identifier: str) -> Any:
        return self.world.database.read_here(lambda tx: tx.execute(select(table).where(table.c.id == identifier)).one())

    def decide(self, decisions: Decisions) -> list[dict[str, Any]]:
        now = self.world.clock.now_ms()
        return self.world.database.write_here(lambda tx: Dispatch().plan(tx, decisions, now))


class Duty:
    """The world, its lane, and a client per role."""

    def __init__(self, world: World, clients: dict[str, httpx.AsyncClient], definitions: dict[str, Any]) -> None:
        self.world = world
        self.clients = clients
        self.lane = Lane(world, definitions)
        self.published: list[tuple[str, dict[str, Any]]] = []

    def plan(self, *changes: AlarmChange | CallChange | NeedChange) -> list[dict[str, Any]]:
        kinds = {AlarmChange: "alarms", CallChange: "calls", NeedChange: "needs"}
        decisions = Decisions()
        for change in changes:
            getattr(decisions, kinds[type(change)]).append(change)
        return self.lane.decide(decisions)

    async def get(self, path: str, role: str = "crew") -> Any:
        answer = await self.clients[role].get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, role: str = "crew", status: int = 200) -> Any:
        answer = await self.clients[role].post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def audited(self, action: str) -> list[tuple[str, str, str]]:
        statement = select(audit.c.actor, audit.c.object, audit.c.detail).where(audit.c.action == action)
        return self.world.database.read_here(lambda tx: [tuple(row) for row in tx.execute(statement)])


@asynccontextmanager
async def on_duty(folder, definitions):
    """A `Duty` with the people of `tests.web.world` signed in, and one without a session (`nobody`)."""
    world = make_world(folder)
    clients: dict[str, httpx.AsyncClient] = {}
    duty = Duty(world, clients, definitions)
    alarms = AlarmService(world.database, world.clock, duty.lane)
    world.services.add(alarms)
    world.services.add(MaintenanceService(world.database, world.clock, duty.lane, lambda: secrets.token_hex(16)))
    world.services.add(IncidentService(world.database, world.clock, duty.lane, alarms, world.changes))
    world.services.add(CallService(world.database, world.clock, duty.lane))
    world.services.add(WorkOrderService(world.database, world.clock, world.changes))
    world.changes.publish = lambda topic, facts: duty.published.append((topic, facts))  # type: ignore[method-assign]
    transport = httpx.ASGITransport(app=world.app)
    try:
        for role in (*ROLES, "other", "nobody"):
            clients[role] = httpx.AsyncClient(transport=transport, base_url="http://fleet.test")
            if role != "nobody":
                body = {"login": role, "password": PASSWORD}
                answer = await clients[role].post("/api/v1/session", json=body)
                assert answer.status_code == 201, answer.text
                clients[role].cookies.clear()
                clients[role].headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield duty
    finally:
        for client in clients.values():
            await client.aclose()
        world.database.close()


async def refusals(duty: Duty, method: str, path: str, allowed: set[str]) -> None:
    """Every role that is not allowed gets 403, nobody gets 401, and the allowed ones get neither."""
    for role in (*ROLES, "nobody"):
        answer = await duty.clients[role].request(method, path, json=None if method == "GET" else {})
        if role in allowed:
            assert answer.status_code not in {401, 403}, (role, path, answer.text)
        else:
            assert answer.status_code == (401 if role == "nobody" else 403), (role, path, answer.text)
            assert answer.headers["content-type"].startswith("application/problem+json")
