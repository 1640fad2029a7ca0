"""The sale of meals with a real SQLite file, real commands, and a simulated machine behind its real driver.

Virtual time: the bench carries bytes and messages between the parts, in order; nothing is a network.
"""

import random
from contextlib import asynccontextmanager

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

import devices
from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.meals import endpoints as meals_endpoints
from cloud.meals import sales
from cloud.meals.service import MealService
from cloud.model import StoredEvent
from cloud.wallet import endpoints as wallet_endpoints
from cloud.wallet import ledger
from cloud.wallet.seed import seed_demo
from cloud.wallet.service import WalletService
from cloud.web import errors
from devices.meal_machine import driver, simulator
from fleet.clock import ManualClock
from fleet.kind import Site
from fleet.messages import Reply
from fleet.signing import verify_command

MACHINE = "meal-001"
NO_FAULTS = {
    "jam_per_sale": 0.0, "missed_drop_per_sale": 0.0, "heater_fault_per_sale": 0.0, "box_forgotten_per_sale": 0.0,
    "door_left_open_per_visit": 0.0, "brown_outs_per_hour": 0.0, "crc_error_per_frame": 0.0,
    "dropped_byte_per_frame": 0.0,
}  # fmt: skip
PEOPLE = {
    "ann": Person("ann", "ann", "Ann", Role.EMPLOYEE, "en"),
    "bo": Person("bo", "bo", "Bo", Role.EMPLOYEE, "zh_CN"),
    "crew": Person("crew", "crew", "Crew", Role.CREW, "zh_CN"),
    "admin": Person("admin", "admin", "Admin", Role.ADMIN, "zh_CN"),
}


class TokenSessions:
    """The bearer token is the person's id."""

    async def person_of(self, request):
        return PEOPLE.get(request.headers.get("authorization", "").removeprefix("Bearer "))


class MealsBench:
    def __init__(self, folder, *, faults=None, stock_share=1.0, seed=1, balance_fen=20_000):
        self.clock = ManualClock()
        self.database = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
        tables.metadata.create_all(self.database.writer)
        self.signer = Ed25519PrivateKey.generate()
        self.downlink = []
        self.ids = random.Random(seed)
        self.changes = Changes()
        self.commands = DeviceCommands(
            self.database, self.clock, self.downlink.extend, OneKey("test", self.signer),
            lambda: f"{self.ids.getrandbits(128):032x}", sales.outcome_handlers(),
        )  # fmt: skip
        self.meals = MealService(self.database, self.clock, self.commands, self.changes)
        facts = {"stock_share": stock_share, "faults": {**NO_FAULTS, **(faults or {})}}
        self.simulator = simulator.create(MACHINE, random.Random(seed), Site(38.86, 121.52, "x", facts), self.now_ms)
        self.driver = driver.create(MACHINE)
        self.connected = True
        """Whether the machine's edge reaches the cloud."""
        self._unsent = []
        self.state = devices.role("meal_machine", "state").initial(MACHINE)
        self.database.write_here(lambda tx: self._seed(tx, balance_fen))
        self._from_driver(self.driver.on_start(self.now_ms))
        self.app = self._app()

    @property
    def now_ms(self):
        return self.clock.now_ms()

    def _seed(self, tx, balance_fen):
        tx.execute(tables.device.insert().values(device_id=MACHINE, kind="meal_machine", generation=1, enrolled_at=1))
        tx.execute(tables.device.insert().values(device_id="bike-001", kind="bike", generation=1, enrolled_at=1))
        for one in PEOPLE.values():
            tx.execute(
                tables.person.insert().values(
                    id=one.id, login=one.login, name=one.name, role=one.role.value, password_hash="-", created_at=1
                )
            )
        if balance_fen:
            seed_demo(tx, ["ann", "bo"], self.now_ms, balance_fen)

    def _app(self):
        app = FastAPI()
        app.state.services, app.state.sessions = Services(), TokenSessions()
        app.state.services.add(self.meals)
        app.state.services.add(WalletService(self.database, self.clock))
        app.include_router(meals_endpoints.router)
        app.include_router(wallet_endpoints.router)
        errors.install(app)
        return app

    @asynccontextmanager
    async def client(self, person="ann"):
        transport = httpx.ASGITransport(app=self.app)
        headers = {"authorization": f"Bearer {person}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://fleet", headers=headers) as client:
            yield client

    # --- the way of the bytes ------------------------------------------------------------------------------------

    def _from_driver(self, output):
        self._unsent.append(output)
        if output.to_hardware + output.after_commit:
            answer = self.simulator.on_bytes(output.to_hardware + output.after_commit, self.now_ms)
            self._from_hardware(answer)

    def _from_hardware(self, output):
        if output.to_driver:
            self._from_driver(self.driver.on_bytes(output.to_driver, self.now_ms))

    def _commit(self, tx):
        """What the pipeline does: twin, events with their handlers, replies."""
        role = devices.role("meal_machine", "state")
        handlers = sales.event_handlers()
        for output in self._unsent:
            for reading in output.readings:
                self.state = role.apply_reading(self.state, reading)
            for at, event in output.events:
                stored = StoredEvent(MACHINE, "meal_machine", event.type, event.event_id, at, self.now_ms, event)
                for handler in handlers.get(("meal_machine", event.type), ()):
                    handler(tx, stored)
            replies = [
                Reply(
                    command_id=item.command_id,
                    device_id=MACHINE,
                    status=item.status,
                    reason=item.reason,
                    at=self.now_ms,
                )
                for item in output.progress
            ]
            self.commands.record_replies(tx, replies, self.now_ms)
        self._unsent.clear()
        if self.state.reading is not None:
            state = msgspec.structs.replace(self.state, reading=self.state.reading.model_dump(mode="json"))
            tx.execute(tables.twin.delete())
            tx.execute(
                tables.twin.insert().values(
                    device_id=MACHINE, kind="meal_machine", state=msgspec.json.encode(state).decode(), desk="{}",
                    generation=1, emergency_seq=0, event_seq=0, telemetry_seq=0, online=1, link_boot_epoch=1,
                    link_connection=1, link_changed_at=1, last_heard_at=self.now_ms, last_reading_at=self.now_ms,
                    version=1,
                )
            )  # fmt: skip

    async def step(self):
        """Send what is queued, expire what is overdue, deliver in both directions, keep deadlines."""
        await self.commands._send_queued()
        await self.commands._expire()
        if self.connected:
            for message in self.downlink:
                order = verify_command(message.payload, {"test": self.signer.public_key()})
                if order.not_after >= self.now_ms:
                    model = devices.kind_named("meal_machine").command_type(
                        msgspec.json.decode(order.command)["action"]
                    )
                    command = model.model_validate_json(bytes(order.command))
                    self._from_driver(self.driver.on_command(order.id, command, self.now_ms))
        self.downlink.clear()
        self._from_hardware(self.simulator.advance(self.now_ms))
        if self.driver.next_due_ms is not None and self.driver.next_due_ms <= self.now_ms:
            self._from_driver(self.driver.on_timer(self.now_ms))
        if self.connected and self._unsent:
            self.database.write_here(self._commit)
        await self.meals.resolve_due()

    async def run(self, seconds, step_s=1.0):
        passed = 0.0
        while passed < seconds:
            self.clock.advance(seconds=step_s)
            passed += step_s
            await self.step()

    def act(self, action, **arguments):
        self._from_hardware(self.simulator.act(action, self.now_ms, **arguments))

    # --- what is true afterwards ---------------------------------------------------------------------------------

    def balance(self, person="ann"):
        return self.database.read_here(lambda tx: ledger.balance(tx, ledger.wallet_of(person)))

    def ledger_problems(self):
        return self.database.read_here(ledger.problems)

    def outcomes(self):
        return self.simulator.snapshot()["outcomes"]

    def close(self):
        self.database.close()
