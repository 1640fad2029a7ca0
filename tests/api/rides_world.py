"""A small world for rides: real SQLite, the real command sender, and a bike whose evidence a test gives by hand."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import insert, select, text, update

from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.model import Downstream, StoredEvent
from cloud.rides.endpoints import router
from cloud.rides.service import RideService
from cloud.wallet import ledger
from cloud.wallet.service import top_up
from cloud.web import errors
from devices.bike.messages import LockClosed, LockJammed, LockOpened
from fleet.clock import ManualClock
from fleet.messages import Reply, ReplyStatus
from fleet.signing import verify_command

BIKE, OTHER_BIKE = "bike-001", "bike-002"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PLACE = {"latitude": 38.8622, "longitude": 121.5263, "accuracy_metres": 5.0}
READING = {
    **PLACE, "at": 1_800_000_000_000, "battery_percent": 80.0, "speed_metres_per_second": 0.0, "lock_state": "locked",
    "tilt_degrees": 7.0, "signal_dbm": -80, "odometer_metres": 1000, "temperature_celsius": 10.0,
}  # fmt: skip
EVENTS = {"lock_opened": LockOpened, "lock_closed": LockClosed, "lock_jammed": LockJammed}


def person(name: str, role: Role = Role.EMPLOYEE) -> Person:
    return Person(id=f"person-{name}", login=name, name=name, role=role, language="zh_CN", csrf_token="token")


@dataclass
class RidesWorld:
    database: SqlDatabase
    clock: ManualClock = field(default_factory=ManualClock)
    sent: list[Downstream] = field(default_factory=list)
    people: dict[str, Person] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self.changes = Changes()
        self.services = Services()
        self.commands = DeviceCommands(
            self.database, self.clock, self.sent.extend, OneKey("cloud-1", KEY), self.new_id, self._outcome_handlers
        )
        self.rides = RideService(self.database, self.clock, self.commands, self.changes, self.new_id)
        for action, handler in self.rides.outcome_handlers.items():
            self._outcome_handlers[action].append(handler)
        self.services.add(self.rides)
        self.app = FastAPI()
        self.app.state.services = self.services
        self.app.state.sessions = self
        self.app.include_router(router)
        errors.install(self.app)

    _outcome_handlers: dict[str, list[Any]] = field(default_factory=lambda: {"unlock": []})

    def new_id(self) -> str:
        return f"{next(self._ids):032x}"

    async def person_of(self, request: Any) -> Person | None:
        """The session store of these tests: the bearer token is the login."""
        return self.people.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    def add_person(self, name: str, balance_fen: int = 1_000, role: Role = Role.EMPLOYEE) -> Person:
        someone = self.people[name] = person(name, role)
        if balance_fen:
            self.database.write_here(lambda tx: top_up(tx, someone.id, balance_fen, name, self.clock.now_ms()))
        return someone

    def add_bike(self, device_id: str, *, online: bool = True, kind: str = "bike", **state: Any) -> None:
        now_ms = self.clock.now_ms()
        whole = {"device_id": device_id, "reading": READING, "lock_state": "locked", **state}
        twin = {
            "device_id": device_id, "kind": kind, "state": json.dumps(whole), "desk": "{}", "generation": 1,
            "emergency_seq": 0, "event_seq": 0, "telemetry_seq": 0, "online": int(online), "link_boot_epoch": 0,
            "link_connection": 0, "link_changed_at": now_ms, "last_heard_at": now_ms, "last_reading_at": now_ms,
            "version": 1,
        }  # fmt: skip
        row = {"device_id": device_id, "kind": kind, "name": "", "generation": 1, "enrolled_at": now_ms}

        def work(tx: Any) -> None:
            tx.execute(insert(tables.device).values(row))
            tx.execute(insert(tables.twin).values(twin))

        self.database.write_here(work)

    def retire(self, device_id: str) -> None:
        change = update(tables.device).where(tables.device.c.device_id == device_id).values(retired_at=1)
        self.database.write_here(lambda tx: tx.execute(change))

    # --- what the pipeline does ------------------------------------------------------------------------------

    async def evidence(
        self, event_type: str, device_id: str = BIKE, *, command_id: str | None = None, occurred_s_ago: float = 0.0
    ) -> None:
        """The bike reports an event: stored, handled in the commit, then announced."""
        event_id = self.new_id()
        body = EVENTS[event_type](event_id=event_id, command_id=command_id, **PLACE)
        now_ms = self.clock.now_ms()
        stored = StoredEvent(
            device_id, "bike", event_type, event_id, now_ms - round(occurred_s_ago * 1000), now_ms, body
        )
        handler = self.rides.event_handlers["bike", event_type]
        await self.database.write(lambda tx: handler(tx, stored))
        self.changes.publish("event", {"device_id": device_id, "kind": "bike", "type": event_type})

    async def reply(self, command_id: str, status: ReplyStatus, reason: str = "", device_id: str = BIKE) -> None:
        """The bike answers a command."""
        now_ms = self.clock.now_ms()
        replies = [Reply(command_id=command_id, device_id=device_id, status=status, reason=reason, at=now_ms)]
        outcomes = await self.database.write(lambda tx: self.commands.record_replies(tx, replies, now_ms))
        self.commands.settled(outcomes)
        for outcome in outcomes:
            self.changes.publish("command", {"id": outcome.command_id, "device_id": device_id})

    # --- what a test looks at --------------------------------------------------------------------------------

    def balance(self, account: str) -> int:
        return self.database.read_here(lambda tx: ledger.balance(tx, account))

    def ledger_problems(self) -> list[str]:
        return self.database.read_here(ledger.problems)

    def entries(self) -> int:
        count = text("SELECT count(*) FROM ledger_entry WHERE transaction_id LIKE 'ride%'")
        return self.database.read_here(lambda tx: tx.execute(count).scalar_one())

    def commands_of(self, device_id: str = BIKE) -> list[Any]:
        query = select(tables.command).where(tables.command.c.device_id == device_id)
        return self.database.read_here(
            lambda tx: list(tx.execute(query.order_by(tables.command.c.issued_at, tables.command.c.id)))
        )

    def ride_row(self, ride_id: str) -> Any:
        query = select(tables.ride).where(tables.ride.c.id == ride_id)
        return self.database.read_here(lambda tx: tx.execute(query).one())

    async def send_commands(self) -> list[Any]:
        """Let the sender sign what is queued; what left, as the device would verify it."""
        await self.commands._send_queued()
        return [verify_command(message.payload, {"cloud-1": KEY.public_key()}) for message in self.sent]

    def client(self, name: str = "") -> AsyncClient:
        headers = {"authorization": f"Bearer {name}"} if name else {}
        return AsyncClient(transport=ASGITransport(app=self.app), base_url="http://fleet", headers=headers)

    @asynccontextmanager
    async def running(self):
        """With the service's background tasks."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.rides.run())
            await asyncio.sleep(0)
            try:
                yield self
            finally:
                task.cancel()


def make_world(tmp_path: Any) -> RidesWorld:
    """Two rentable bikes, two riders with money."""
    database = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")

    def create(tx: Any) -> None:
        tables.metadata.create_all(tx)
        for statement in tables.append_only_statements("sqlite"):
            tx.exec_driver_sql(statement)

    database.write_here(create)
    world = RidesWorld(database)
    world.add_bike(BIKE)
    world.add_bike(OTHER_BIKE)
    world.add_person("wang")
    world.add_person("li")
    return world


__all__ = ["BIKE", "OTHER_BIKE", "RidesWorld", "make_world"]
