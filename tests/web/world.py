"""A small world for the tests of the API and the pages: real SQLite, rows as the pipeline writes them."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Connection, insert, update

from cloud import products, tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.members import repository as members_repository
from cloud.members.service import MemberService
from cloud.ports import IntentRefusedError
from cloud.settings import CloudSettings
from cloud.web.app import create_app
from fleet.clock import Clock, ManualClock
from fleet.messages import Command

NOW_MS = 1_800_000_000_000
PASSWORD = "correct horse battery"
# Cheap hashing keeps the tests quick; the service's default is tested on its own.
HASHER = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1),))


class FakeCommands:
    """`CommandSender` that writes the row and never sends; `answer` ends a command."""

    def __init__(self, clock: Clock, database: SqlDatabase) -> None:
        self._clock = clock
        self._database = database
        self.woken = 0
        self.full = False

    def order(
        self, tx: Connection, device_id: str, command: Command, *, actor: str, lifetime_s: float | None = None
    ) -> str:
        del lifetime_s
        if self.full:
            raise ValueError(f"{device_id}: queue full")
        now = self._clock.now_ms()
        command_id = secrets.token_hex(16)
        tx.execute(
            insert(tables.command).values(
                id=command_id, device_id=device_id, action=command.action, arguments=command.model_dump_json(),
                actor=actor, issued_at=now, not_after=now + 10_000, generation=1, status="queued", changed_at=now,
            )
        )  # fmt: skip
        return command_id

    def after_commit(self) -> None:
        self.woken += 1

    async def cancel(self, command_id: str, also: Callable[[Connection], None]) -> bool:
        def end(tx: Connection) -> bool:
            queued = (tables.command.c.id == command_id) & (tables.command.c.status == "queued")
            ended = tx.execute(update(tables.command).where(queued).values(status="refused", reason="cancelled"))
            if ended.rowcount:
                also(tx)
            return bool(ended.rowcount)

        return await self._database.write(end)

    async def outcome(self, command_id: str, wait_s: float) -> tuple[str, str]:
        del wait_s

        def end(tx: Connection) -> None:
            tx.execute(update(tables.command).where(tables.command.c.id == command_id).values(status="succeeded"))

        await self._database.write(end)
        return "succeeded", ""


class FakeIntents:
    """`LaneIntents` that answers as the desk would, for the acts these tests need."""

    def __init__(self, clock: Clock, database: SqlDatabase) -> None:
        self._clock = clock
        self._database = database
        self.submitted: list[tuple[str, str, str, dict[str, Any]]] = []
        self.refusal = ""

    async def submit(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.submitted.append((device_id, name, actor, arguments))
        if self.refusal:
            raise IntentRefusedError(self.refusal)
        now = self._clock.now_ms()

        def change(tx: Connection) -> None:
            if name == "acknowledge_alarm":
                tx.execute(
                    update(tables.alarm)
                    .where(tables.alarm.c.device_id == device_id, tables.alarm.c.state == "unacknowledged")
                    .values(state="acknowledged", acknowledged_by=actor, acknowledged_at=now, changed_at=now)
                )
            elif name == "acknowledge_call":
                tx.execute(
                    update(tables.call)
                    .where(tables.call.c.device_id == device_id)
                    .values(state="acknowledged", acknowledged_by=actor, acknowledged_at=now, changed_at=now)
                )

        await self._database.write(change)
        return {}


class FakeSeries:
    """`SeriesStore` with a plain curve."""

    async def read(
        self, kind: str, device_id: str, field: str, from_ms: int, to_ms: int, step_ms: int, aggregate: str = "mean"
    ) -> list[tuple[int, float]]:
        del kind, device_id, field, aggregate
        return [(at, 20 + 10 * ((at // step_ms) % 24) / 24) for at in range(from_ms, to_ms, max(step_ms, 600_000))]


@dataclass
class World:
    """The application and what stands behind it."""

    database: SqlDatabase
    clock: Clock
    settings: CloudSettings
    services: Services = field(default_factory=Services)
    changes: Changes = field(default_factory=Changes)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.commands = FakeCommands(self.clock, self.database)
        self.intents = FakeIntents(self.clock, self.database)
        self.members = MemberService(
            self.database,
            self.clock,
            secure_cookies=self.settings.public_url.startswith("https://"),
            hasher=HASHER,
        )
        self.services.add(self.members)
        products.add_services(
            self.services, products.Handlers(), database=self.database, clock=self.clock, commands=self.commands,
            intents=self.intents, series=FakeSeries(), changes=self.changes, new_id=lambda: secrets.token_hex(16),  # type: ignore[arg-type]
            data_directory=self.settings.data_directory, public_url=self.settings.public_url,
        )  # fmt: skip
        self.app = create_app(
            self.services, self.settings, sessions=self.members, changes=self.changes, clock=self.clock,
            registry=self.registry,
        )  # fmt: skip

    def write(self, table: Any, **values: Any) -> None:
        self.database.write_here(lambda tx: tx.execute(insert(table).values(**values)))


def make_world(folder: Path, clock: Clock | None = None, **settings: Any) -> World:
    """A world with one person of each role (and a second employee) and no devices."""
    database = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
    database.write_here(tables.metadata.create_all)
    world = World(database, clock or ManualClock(NOW_MS), CloudSettings(data_directory=folder, **settings))
    names = {"employee": "王小雨", "other": "赵大海", "crew": "李师傅", "admin": "张管理"}
    for login, name in names.items():
        role = "employee" if login == "other" else login
        database.write_here(
            lambda tx, login=login, role=role, name=name: members_repository.add_person(
                tx, id=f"person-{login}", login=login, name=name, role=role, password_hash=HASHER.hash(PASSWORD),
                language="zh_CN", created_at=NOW_MS,
            )
        )  # fmt: skip
    return world


BIKE_READING = {
    "at": NOW_MS - 60_000, "battery_percent": 81.0, "latitude": 38.862, "longitude": 121.515, "accuracy_metres": 4.0,
    "speed_metres_per_second": 0.0, "lock_state": "locked", "tilt_degrees": 3.0, "signal_dbm": -71.0,
    "odometer_metres": 812_331.0, "temperature_celsius": 11.5,
}  # fmt: skip


def add_device(
    world: World, device_id: str, kind: str, *, name: str = "", online: bool = True,
    state: dict[str, Any] | None = None, latitude: float = 38.86, longitude: float = 121.52, heard_ago_ms: int = 5_000,
) -> None:  # fmt: skip
    """A device and its twin, as enrolment and the pipeline leave them."""
    now = world.clock.now_ms()
    world.write(
        tables.device, device_id=device_id, kind=kind, name=name, latitude=latitude, longitude=longitude, generation=1,
        enrolled_at=now - 86_400_000,
    )  # fmt: skip
    world.write(
        tables.twin, device_id=device_id, kind=kind, state=json.dumps(state or {"device_id": device_id}), desk="{}",
        generation=1, emergency_seq=0, event_seq=0, telemetry_seq=0, online=int(online), link_boot_epoch=1,
        link_connection=1, link_changed_at=now - 3_600_000, last_heard_at=now - heard_ago_ms,
        last_reading_at=now - heard_ago_ms, version=1,
    )  # fmt: skip


def add_alarm(world: World, alarm_id: str, device_id: str, kind: str, key: str, **values: Any) -> None:
    now = world.clock.now_ms()
    columns = {
        "priority": "medium", "state": "unacknowledged", "activated_at": now - 600_000, "changed_at": now, **values,
    }  # fmt: skip
    world.write(tables.alarm, id=alarm_id, device_id=device_id, kind=kind, key=key, **columns)


def add_call(world: World, call_id: str, device_id: str, **values: Any) -> None:
    now = world.clock.now_ms()
    columns = {
        "kind": "nursing_room", "state": "calling", "pressed_at": now - 42_000, "received_at": now - 41_800,
        "changed_at": now, **values,
    }  # fmt: skip
    world.write(tables.call, id=call_id, device_id=device_id, **columns)


def add_order(world: World, order_id: str, device_id: str, kind: str, **values: Any) -> None:
    now = world.clock.now_ms()
    columns = {
        "cause": order_id, "skill": "restock", "title_zh": "补货", "title_en": "Restock", "items": "{}",
        "priority": "medium", "state": "dispatchable", "created_at": now - 900_000, "due_at": now + 5_400_000,
        "changed_at": now, **values,
    }  # fmt: skip
    world.write(tables.work_order, id=order_id, device_id=device_id, kind=kind, **columns)


def machine_state(device_id: str) -> dict[str, Any]:
    """State of a meal machine with stock, as its kind writes it."""
    now, day = NOW_MS, 86_400_000
    menu = (
        ("braised-pork-rice", 2200, 7),
        ("kungpao-chicken", 1900, 3),
        ("mapo-tofu", 1500, 0),
        ("tomato-beef", 2600, 5),
    )
    slots = [
        {
            "slot": f"A{number}", "sku": sku, "price_fen": price, "status": "ready", "capacity_count": 10,
            "count": count,
            "lots": [{"lot": f"L{number:010}", "expires_at": now + day, "count": count}] if count else [],
        }
        for number, (sku, price, count) in enumerate(menu, 1)
    ]  # fmt: skip
    reading = {
        "at": now - 10_000, "chilled_celsius": 4.2, "heater_celsius": 21.0, "door_open": False, "mains_power": True,
        "locked_out": False, "heater_fault": False, "output_occupied": False, "heating_queue_count": 0,
        "stock_count": 15, "slots": slots,
    }  # fmt: skip
    return {"device_id": device_id, "reading": reading}


ROOM_READING = {
    "at": NOW_MS - 8_000, "call_state": "idle", "button_link_ok": True, "button_battery_percent": 92,
    "cord_in_place": True, "occupied": False, "fridge_celsius": 3.1, "fridge_door_open": False,
    "sterilizer_state": "idle", "sterilizer_door_open": False, "lamp_hours": 812.0, "air_celsius": 22.5,
    "air_relative_humidity_percent": 41.0, "mains_power": True, "backup_battery_percent": 100,
}  # fmt: skip
