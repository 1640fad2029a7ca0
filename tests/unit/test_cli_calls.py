"""`fleet calls` on a real SQLite file, with a room's lane that answers as a running process does."""

import json
import threading

import pytest
from button_bench import Room
from cli_support import fleet, one_line
from sqlalchemy import insert, select, update

from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.ingest.repository import answer_intents, waiting_intents
from cloud.model import Decisions
from cloud.ports import IntentRefusedError

TWIN = {
    "kind": "nursing_room", "state": "{}", "desk": "{}", "generation": 1, "emergency_seq": 0, "event_seq": 0,
    "telemetry_seq": 0, "online": 1, "link_boot_epoch": 1, "link_connection": 1, "link_changed_at": 1,
    "last_heard_at": 1, "last_reading_at": 1, "version": 1,
}  # fmt: skip


class Lane(threading.Thread):
    """Takes acts from the database into the room's lane, as `fleet serve` does beside a command."""

    def __init__(self, room, url):
        super().__init__(daemon=True)
        self.room = room
        self.database = SqlDatabase(url)
        self.ending = threading.Event()

    def run(self):
        while not self.ending.wait(0.02):
            for item in self.database.read_here(waiting_intents):
                self.database.write_here(lambda tx, item=item: self.take(tx, item))
        self.database.close()

    def take(self, tx, item):
        room, decisions = self.room, Decisions()
        try:
            answer = room.rules.on_intent(room.lane, item, item.at, decisions)
        except IntentRefusedError as refusal:
            answer_intents(tx, [(item, None, str(refusal))], item.at)
            return
        room.dispatch.plan(tx, decisions, item.at)
        answer_intents(tx, [(item, json.dumps(answer), None)], item.at)


@pytest.fixture
def duty(tmp_path):
    """The database's folder as options, and the room."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    upgrade(url)
    room = Room()
    room.database = SqlDatabase(url)

    def fill(tx):
        for device_id in ("room-001", "room-002"):
            tx.execute(insert(tables.device).values(device_id=device_id, kind="nursing_room", enrolled_at=1))
            tx.execute(insert(tables.twin).values(device_id=device_id, **TWIN))
        for login, role, disabled_at in (("li", "crew", None), ("gone", "crew", 1), ("em", "employee", None)):
            tx.execute(
                insert(tables.person).values(
                    id=f"p-{login}", login=login, name=login.title(), role=role, password_hash="", created_at=1,
                    disabled_at=disabled_at,
                )
            )  # fmt: skip

    room.database.write_here(fill)
    room.reading()
    lane = Lane(room, url)
    lane.start()
    yield ("--data-directory", tmp_path), room
    lane.ending.set()
    lane.join()
    room.database.close()


def answer_of(*arguments, code=0):
    result = fleet("calls", *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def audited(room):
    return room.database.read_here(lambda tx: [tuple(row) for row in tx.execute(
        select(tables.audit.c.action, tables.audit.c.actor).order_by(tables.audit.c.id))])  # fmt: skip


def test_a_call_is_listed_shown_and_accepted_once_and_ends_in_its_room_only(duty):
    data, room = duty
    assert fleet("calls", "list", *data).exit_code == 0
    call_id = room.event("pressed")
    assert [call["id"] for call in answer_of("list", "--open", *data)] == [call_id]
    assert answer_of("list", "--room", "room-002", *data) == []
    accepted = answer_of("acknowledge", call_id, "--person", "li", *data)
    assert (accepted["state"], accepted["acknowledged_by_name"]) == ("acknowledged", "Li")
    assert [row.state for row in room.rows(tables.call)] == ["acknowledged"]
    assert {row.last_error for row in room.pages() if row.urgent == 1} == {"withdrawn: acknowledged"}
    again = fleet("calls", "acknowledge", call_id, "--person", "li", *data)
    assert again.exit_code == 1
    assert "already acknowledged" in one_line(again)
    shown = fleet("calls", "show", call_id, *data)
    assert shown.exit_code == 0
    assert "press" in shown.stdout
    assert "Li" in shown.stdout
    assert [step["step"] for step in answer_of("show", call_id, *data)["steps"]] == ["press", "acknowledge"]
    room.event("cleared_at_origin")
    assert answer_of("list", "--open", *data) == []
    late = fleet("calls", "acknowledge", call_id, "--person", "li", *data)
    assert (late.exit_code, "not open any more" in one_line(late)) == (1, True)
    assert ("call.acknowledge", "p-li") in audited(room)
    assert ("call.view_history", "command-line") in audited(room)


def test_a_button_is_tested_and_what_it_proved_is_listed(duty):
    data, room = duty
    begun = answer_of("test", "room-001", "--seconds", "60", *data)
    assert begun["device_id"] == "room-001"
    room.clock.jump(seconds=(begun["test_until"] - room.now) / 1000 - 30)  # commands have the time of this machine
    call_id = room.event("pressed")
    assert room.pages() == [], "nobody is paged by a test"
    refused = fleet("calls", "test", "room-001", *data)
    assert (refused.exit_code, "open call" in one_line(refused)) == (1, True)
    assert [(call["id"], call["purpose"]) for call in answer_of("list", "--open", *data)] == [(call_id, "test")]
    assert answer_of("tests", "room-001", *data) == []
    assert ("button.test", "command-line") in audited(room)


def test_buttons_that_need_somebody_end_with_exit_code_3_and_a_substitute_is_recorded(duty):
    data, room = duty
    assert answer_of("buttons", *data) == []
    assert len(answer_of("buttons", "--all", *data)) == 2
    words = ("--measure", "front desk looks in", "--responsible", "Li", "--hours", "4")
    refused = fleet("calls", "substitute", "room-001", *words, *data)
    assert (refused.exit_code, "no substitute measure is needed" in one_line(refused)) == (1, True)
    room.reading(button_link_ok=False)
    desk = room.rules.encode_desk(room.lane.desk)
    twin = update(tables.twin).where(tables.twin.c.device_id == "room-001").values(desk=desk)
    room.database.write_here(lambda tx: tx.execute(twin))
    (found,) = answer_of("buttons", *data, code=3)
    assert (found["device_id"], found["faults"]) == ("room-001", ["button_disconnected"])
    assert fleet("calls", "buttons", *data).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "none"], 1),
        (["acknowledge", "none", "--person", "li"], 1),
        (["acknowledge", "none", "--person", "nobody"], 2),
        (["acknowledge", "none", "--person", "em"], 2),
        (["acknowledge", "none", "--person", "gone"], 2),
        (["acknowledge", "none"], 2),
        (["test", "room-999"], 1),
        (["test", "room-001", "--seconds", "900"], 2),
        (["substitute", "room-001", "--measure", "x", "--responsible", "Li"], 2),
        (["substitute", "room-001", "--measure", "look in", "--responsible", "Li", "--hours", "900"], 2),
        (["tests", "room-999"], 1),
        (["list", "--limit", "0"], 2),
        (["end", "none"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_cannot_be_done_is_said_with_its_exit_code(duty, arguments, code):
    data, room = duty
    result = fleet("calls", *arguments, *(data if arguments[0] != "end" else ()))
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert room.rows(tables.intent) == []


def test_a_folder_without_a_database_is_said_in_one_line(tmp_path):
    result = fleet("calls", "list", "--data-directory", tmp_path)
    assert result.exit_code == 2
    assert "no database" in one_line(result)
