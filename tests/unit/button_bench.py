"""A nursing room behind the real rules and dispatch on SQLite: what its call and its button do over time."""

import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import select

import devices
from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.dispatch.planner import Dispatch
from cloud.model import Accepted, Decisions, Intent
from cloud.rules.supervised import SupervisedRules
from cloud.twin.stage import Twin
from fleet.clock import ManualClock

KIND = "nursing_room"
EARLY_BY = 1_000
"""Numbers that are missing before an early event: enough for all that comes until its turn."""
READING = {
    "call_state": "idle", "button_link_ok": True, "button_battery_percent": 90, "cord_in_place": True,
    "occupied": False, "fridge_celsius": 3.0, "fridge_door_open": False, "sterilizer_state": "idle",
    "sterilizer_door_open": False, "lamp_hours": 10.0, "air_celsius": 21.0,
    "air_relative_humidity_percent": 40.0, "mains_power": True, "backup_battery_percent": 100,
}  # fmt: skip


class Room:
    """`decided` are the alarm and call changes since the last `take`."""

    def __init__(self, folder: Path | None = None, device_id: str = "room-001") -> None:
        self.device_id = device_id
        self.clock = ManualClock()
        kinds = {KIND: devices.kinds()[KIND]}
        self.kind = kinds[KIND]
        self.twin, self.rules, self.dispatch = Twin(kinds), SupervisedRules(kinds), Dispatch(("inbox", "webhook"))
        self.lane = self.twin.new_lane(device_id, KIND)
        self.lane.desk = self.rules.new_desk()
        self.listening_since: int | None = self.now
        self.decided = Decisions()
        self.database: SqlDatabase | None = None
        self._fridge = 3.0
        self._places: dict[str, int] = {}
        self._place = 0
        if folder is not None:
            self.database = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
            self.database.write_here(tables.metadata.create_all)

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    def reading(self, **fields: Any) -> None:
        self._fridge = 3.0 if self._fridge != 3.0 else 3.1
        reading = self.kind.reading(at=self.now, **{**READING, "fridge_celsius": self._fridge, **fields})
        self._do(lambda found: (
            self.twin.on_reading(self.lane, reading, self.now),
            self.rules.on_reading(self.lane, self.now, self.now, found),
            self.rules.on_heard(self.lane, self.now, found),
        ))  # fmt: skip

    def event(
        self, type_: str, event_id: str = "", at: int | None = None, *, early: bool = False, **fields: Any
    ) -> str:
        event_id = event_id or secrets.token_hex(16)
        model = self.kind.event_type(type_)
        if "press_id" in model.model_fields:
            fields = {"press_id": event_id, **fields}
        body = model(event_id=event_id, **fields)
        accepted = Accepted(self.lane, self._envelope(event_id, at, early=early), b"", event=body, early=early)
        self.twin.on_event(accepted, self.now)
        self._do(lambda found: self.rules.on_event(accepted, self.now, found))
        return event_id

    def again(self, type_: str, event_id: str) -> None:
        """A press that was acted on early comes in its turn."""
        body = self.kind.event_type(type_)(event_id=event_id, press_id=event_id)
        self._place = max(self._place, self._places[event_id])
        envelope = SimpleNamespace(occurred_at=self.now, boot_epoch=1, seq=self._places[event_id])
        accepted = Accepted(self.lane, envelope, b"", event=body)
        self._do(lambda found: self.rules.on_repeat(accepted, self.now, found))

    def _envelope(self, event_id: str, at: int | None, *, early: bool) -> SimpleNamespace:
        """Until the turn of an early event, all that comes in its turn has a lower number."""
        if early:
            place = max([self._place, *self._places.values()]) + EARLY_BY
        else:
            place = self._place = self._place + 1
        self._places[event_id] = place
        return SimpleNamespace(occurred_at=self.now if at is None else at, boot_epoch=1, seq=place)

    def place(self, event_id: str) -> int:
        """Its number in the lane of emergencies."""
        return self._places[event_id]

    def intent(self, name: str, actor: str = "p1", **arguments: Any) -> dict[str, Any]:
        item = Intent(secrets.token_hex(8), self.device_id, name, actor, arguments, self.now)
        answers: list[dict[str, Any]] = []
        self._do(lambda found: answers.append(self.rules.on_intent(self.lane, item, self.now, found)))
        return answers[0]

    def pass_time(self, seconds: float, *, alive: bool = True) -> None:
        """From due time to due time; `alive`: it reports every 15 s, or once in a long stretch."""
        end = self.now + round(seconds * 1000)
        step_ms = 15_000 if seconds < 7_200 else 600_000
        while self.now < end:
            due = self.rules.next_due(self.lane, self.listening_since)
            until = min(end, self.now + step_ms, *([due] if due is not None and due > self.now else []))
            self.clock.advance(seconds=(until - self.now) / 1000)
            if alive:
                self.lane.last_heard_at = self.lane.data_at = self.now
                self.reading()
            self.fire()

    def fire(self) -> None:
        for _ in range(20):
            due = self.rules.next_due(self.lane, self.listening_since)
            if due is None or due > self.now:
                return
            self._do(lambda found: self.rules.on_timer(self.lane, self.now, self.listening_since, found))
        raise AssertionError("a timer that is due for ever would keep the ingester busy")

    def restart(self) -> None:
        """A new process has what the old one stored, and nothing else."""
        self.lane.desk = self.rules.decode_desk(KIND, self.rules.encode_desk(self.lane.desk))
        self.lane.state = self.twin.decode_state(KIND, self.twin.encode_state(self.lane.state))
        self.listening_since = self.now

    def take(self) -> Decisions:
        decided, self.decided = self.decided, Decisions()
        return decided

    def alarms(self) -> list[tuple[str, str]]:
        return [(change.definition.key, change.event.value) for change in self.take().alarms]

    def holds(self, key: str) -> bool:
        status = self.lane.desk.alarms.get(key)
        return status is not None and status.condition

    def rows(self, table: Any) -> list[Any]:
        assert self.database is not None
        return self.database.read_here(lambda tx: list(tx.execute(select(table).order_by(*table.primary_key))))

    def pages(self) -> list[Any]:
        """Urgent outbox rows of the webhook."""
        return [row for row in self.rows(tables.outbox) if row.urgent and row.channel == "webhook"]

    def _do(self, work: Any) -> None:
        found = Decisions()
        work(found)
        self.decided.alarms += found.alarms
        self.decided.calls += found.calls
        if self.database is not None and found:
            self.database.write_here(lambda tx: self.dispatch.plan(tx, found, self.now))
            self.database.write_here(lambda tx: self.dispatch.plan(tx, found, self.now))  # a commit that is tried again
