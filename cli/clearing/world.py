"""The product on a database of its own, with one room that calls for help: everything real but broker and network."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, select

import devices
from cloud import products
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.device_commands.keys import KeyRingFile
from cloud.device_commands.service import DeviceCommands
from cloud.dispatch.planner import Dispatch
from cloud.ingest import repository as ingest_rows
from cloud.members.repository import add_person
from cloud.members.service import MemberService
from cloud.model import Accepted, Decisions, DeviceLane, Intent, StoredEvent
from cloud.ports import IntentRefusedError
from cloud.rules.supervised import SupervisedRules
from cloud.settings import CloudSettings
from cloud.tables import call, device
from cloud.twin import repository as twin_rows
from cloud.twin.stage import Twin
from cloud.web.app import create_app
from fleet.clock import ManualClock
from fleet.envelope import Envelope, Lane
from fleet.kind import CallStep, Kind

ROOM: Final = "room-001"
OTHER_ROOM: Final = "room-002"
EVERYBODY: Final = tuple(Role)


class _NoSeries:
    """The series of a room nobody measured."""

    async def read(self, *_: Any, **__: Any) -> list[tuple[int, float]]:
        return []

    async def count(self, _kind: str | None = None) -> int:
        return 0

    async def write(self, _points: Any) -> None:
        return None

    async def close(self) -> None:
        return None


class _Sessions:
    """Whoever asks is who the proof says."""

    person: Person | None = None

    async def person_of(self, _request: Any) -> Person | None:
        return self.person


class ClearingWorld:
    """Opens a call at its start; `is_open` says whether it still is, in the lane and in the database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{(folder / 'state.db').resolve()}"
        upgrade(self.url)
        self.database = SqlDatabase(self.url)
        self.clock = ManualClock()
        self.kinds: Mapping[str, Kind] = devices.kinds()
        self.kind = next(name for name, kind in self.kinds.items() if kind.emergency)
        self.twin = Twin(self.kinds)
        self.rules = SupervisedRules(self.kinds)
        self.dispatch = Dispatch()
        self.handlers = products.Handlers()
        keys = KeyRingFile(folder / "command.key")
        self.commands = DeviceCommands(
            self.database, self.clock, lambda _: None, keys, lambda: secrets.token_hex(16), self.handlers.outcomes
        )
        self.changes = Changes()
        self.services = Services()
        settings = CloudSettings(data_directory=folder)
        members = MemberService(self.database, self.clock, secure_cookies=False)
        self.services.add(members)
        products.add_services(
            self.services, self.handlers, database=self.database, clock=self.clock, commands=self.commands,
            intents=self, series=_NoSeries(), changes=self.changes, new_id=lambda: secrets.token_hex(16),
        )  # fmt: skip
        self.sessions = _Sessions()
        self.app = create_app(
            self.services, settings, sessions=self.sessions, changes=self.changes, clock=self.clock,
            registry=CollectorRegistry(),
        )  # fmt: skip
        self.database.write_here(self._fill)
        self.lanes: dict[str, DeviceLane] = {}
        for device_id in (ROOM, OTHER_ROOM):
            lane = self.lanes[device_id] = self.twin.new_lane(device_id, self.kind)
            lane.desk = self.rules.new_desk()
            lane.last_heard_at = self.clock.now_ms()
        self.steps = devices.role(self.kind, "rules").call_steps()
        self.press = next(type_ for type_, step in self.steps.items() if step is CallStep.PRESS)
        self.clear = next(type_ for type_, step in self.steps.items() if step is CallStep.CLEAR_AT_ORIGIN)
        self.call_id = self.event(self.press)
        self.opened_again = 0

    def _fill(self, tx: Connection) -> None:
        now_ms = self.clock.now_ms()
        for device_id in (ROOM, OTHER_ROOM):
            row = {"device_id": device_id, "kind": self.kind, "name": device_id, "enrolled_at": now_ms, "generation": 1}
            tx.execute(device.insert(), row)
        for role in EVERYBODY:
            add_person(
                tx, id=role.value, login=role.value, name=role.value, role=role.value, language="en", created_at=now_ms,
                password_hash="",
            )  # fmt: skip

    def person(self, role: Role) -> Person:
        return Person(role.value, role.value, role.value, role, "en", csrf_token="token")  # noqa: S106  # of nobody

    # --- what moves a lane ---------------------------------------------------------------------------------------

    def event(self, type_: str, device_id: str = ROOM, event_id: str = "", **fields: Any) -> str:
        """One event of a room through rules and dispatch, as the pipeline commits it; returns its id."""
        model = self.kinds[self.kind].event_type(type_)
        event_id = event_id or secrets.token_hex(16)
        body = model.model_construct(type=type_, event_id=event_id, **{**_plausible(model), **fields})
        lane, now_ms = self.lanes[device_id], self.clock.now_ms()
        lane.emergency_seq += 1
        envelope = Envelope(
            version=1, kind=self.kind, device_id=device_id, boot_epoch=1 << 20, lane=Lane.EMERGENCY,
            seq=lane.emergency_seq, occurred_at=now_ms, payload=body.model_dump_json().encode(),  # type: ignore[arg-type]
        )  # fmt: skip
        accepted = Accepted(lane, envelope, b"", event=body)
        decisions = Decisions()
        self.twin.on_event(accepted, now_ms)
        self.rules.on_event(accepted, now_ms, decisions)

        def also(tx: Connection) -> None:
            ingest_rows.store_event(tx, accepted, now_ms)
            stored = StoredEvent(device_id, self.kind, type_, event_id, now_ms, now_ms, body)
            for handler in self.handlers.events.get((self.kind, type_), ()):
                handler(tx, stored)

        self.commit(decisions, also)
        return event_id

    def commit(self, decisions: Decisions, also: Any = None) -> None:
        """The pipeline's commit."""

        def work(tx: Connection) -> None:
            twin_rows.save(tx, self.lanes.values(), self.twin.encode_state, self.rules.encode_desk)
            if also is not None:
                also(tx)
            self.dispatch.plan(tx, decisions, self.clock.now_ms())

        self.database.write_here(work)

    def timer(self, device_id: str = ROOM) -> None:
        """A due time was reached."""
        decisions = Decisions()
        now_ms = self.clock.now_ms()
        self.rules.on_timer(self.lanes[device_id], now_ms, now_ms - 86_400_000, decisions)
        self.commit(decisions)

    async def submit(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """See cloud.ports.LaneIntents: decided by the rules, committed as the pipeline does."""
        await asyncio.sleep(0)
        return self.act(device_id, name, actor, arguments)

    def act(self, device_id: str, name: str, actor: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """An act of a person in the lane; raises IntentRefusedError."""
        lane = self.lanes.get(device_id)
        if lane is None:
            raise IntentRefusedError(f"no device {device_id!r} in service")
        decisions = Decisions()
        intent = Intent(secrets.token_hex(8), device_id, name, actor, arguments, self.clock.now_ms())
        answer = self.rules.on_intent(lane, intent, self.clock.now_ms(), decisions)
        self.commit(decisions)
        return answer

    def answer_waiting(self) -> None:
        """Acts that came through the database, from the command line: carried out as the ingesting process does."""
        for intent in self.database.read_here(ingest_rows.waiting_intents):
            answer, refused = "{}", None
            try:
                answer = json.dumps(self.act(intent.device_id, intent.name, intent.actor, intent.arguments))
            except IntentRefusedError as refusal:
                refused = str(refusal)
            now_ms = self.clock.now_ms()
            answers = [(intent, None if refused else answer, refused)]
            self.database.write_here(lambda tx, answers=answers: ingest_rows.answer_intents(tx, answers, now_ms))  # type: ignore[misc]  # noqa: B023  # used at once

    # --- what is looked at ---------------------------------------------------------------------------------------

    def trouble(self) -> str:
        """Empty while the call is open everywhere; else what happened to it."""
        row = self.database.read_here(
            lambda tx: tx.execute(select(call).where(call.c.id == self.call_id)).one_or_none()
        )
        if row is None:
            return "the row of the call is gone"
        if row.state == "cleared" or row.cleared_at is not None:
            return "the call is cleared in the database"
        held = self.lanes[ROOM].desk.call
        if held is None or held.call_id != self.call_id:
            return "the room's lane has forgotten the call"
        return ""

    def make_urgent_again(self) -> None:
        """A further press: so that acts meet the call in its first state, too."""
        self.opened_again += 1
        self.event(self.press)

    def close(self) -> None:
        self.database.close()


def _plausible(model: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in {"type", "event_id"}:
            continue
        annotation = field.annotation
        arguments = getattr(annotation, "__args__", ())
        if annotation is bool:
            values[name] = True
        elif annotation in {int, float}:
            values[name] = 1
        elif arguments and isinstance(arguments[0], str):
            values[name] = arguments[0]
        else:
            values[name] = secrets.token_hex(16)
    return values
