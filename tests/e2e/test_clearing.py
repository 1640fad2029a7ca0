"""Nothing but the room's own key ends an open call: proven from the running code, and the proof itself is proven."""

from pathlib import Path

import pytest
from sqlalchemy import text

from cli.clearing import commands, doors
from cli.clearing.doors import CallEndedError, Tried
from cli.clearing.proof import WRITERS, prove
from cli.clearing.world import ROOM, ClearingWorld
from cloud.rules.supervised import SupervisedRules


def test_no_route_command_act_timer_chore_or_statement_clears_an_open_call(tmp_path):
    found = prove(tmp_path)
    assert found["violations"] == []
    assert found["holds"]
    doors_tried = found["doors"]
    assert doors_tried["routes"] > 60
    assert doors_tried["commands"] > 15
    assert doors_tried["events"] > 8
    assert {"acknowledge_call", "acknowledge_alarm", "retire", "revoke", "begin_button_test"} <= set(
        found["names"]["intents"]
    )
    assert "POST /api/v1/calls/{call_id}/acknowledge" in found["names"]["routes"]
    assert found["answers"]["2xx"] > 40, "routes were really carried out"
    assert found["answers"].get("5xx", 0) < found["answers"]["2xx"], found["answers"]


@pytest.fixture
def world(tmp_path):
    world = ClearingWorld(tmp_path)
    yield world
    world.close()


async def test_a_new_route_is_tried_by_itself_and_found_out(world):
    def end_all_calls() -> None:
        world.lanes[ROOM].desk.call = None

    world.app.add_api_route("/api/v1/anything/new", end_all_calls, methods=["POST"])
    tried = Tried()
    with pytest.raises(CallEndedError):
        await doors.try_routes(world, tried)
    assert tried.violations == ["routes POST /api/v1/anything/new: the room's lane has forgotten the call"]


def test_a_new_act_is_tried_by_itself_and_found_out(world, monkeypatch):
    real = SupervisedRules.on_intent

    def obliging(self, lane, intent, now_ms, decisions):
        if intent.name == "revoke":
            lane.desk.call = None
        return real(self, lane, intent, now_ms, decisions)

    monkeypatch.setattr(SupervisedRules, "on_intent", obliging)
    tried = Tried()
    with pytest.raises(CallEndedError):
        doors.try_intents(world, tried)
    assert "revoke" in tried.violations[0]


def test_a_timer_that_ends_old_calls_is_found_out(world, monkeypatch):
    real = SupervisedRules.on_timer

    def tidy(self, lane, now_ms, listening_since_ms, decisions):
        real(self, lane, now_ms, listening_since_ms, decisions)
        if lane.desk.call is not None and now_ms - lane.desk.call.pressed_at > 600_000:
            lane.desk.call = None

    monkeypatch.setattr(SupervisedRules, "on_timer", tidy)
    with pytest.raises(CallEndedError):
        doors.try_time(world, Tried())


def test_a_new_statement_on_the_table_of_calls_is_found_by_itself(tmp_path):
    package = tmp_path / "cloud"
    package.mkdir()
    (package / "tidy.py").write_text("def f(tx):\n    tx.execute(update(call).values(state='cleared'))\n")
    (package / "raw.py").write_text('S = "DELETE FROM call WHERE 1 = 1"\nT = "UPDATE call_transition SET at = 1"\n')
    found = doors.sql_writers(package)
    assert [one.partition(":")[0] for one in found] == ["cloud/raw.py", "cloud/tidy.py"]
    assert not WRITERS & {one.partition(":")[0] for one in found}


def test_without_the_lock_in_the_database_the_proof_fails(world):
    world.database.write_here(lambda tx: tx.execute(text("DROP TRIGGER call_cleared_at_origin")))
    with pytest.raises(CallEndedError):
        doors.try_sql(world, Tried())


def test_every_command_that_opens_the_database_is_listed():
    import typer

    from cli.app import app

    names = {" ".join(path) for path, command in commands._leaves(typer.main.get_command(app), ())}
    assert {"devices list", "commands send", "watchdog", "serve"} <= names
    assert names | {"receiver"} >= commands.ENDLESS, "a name in it that no command has any more hides nothing"
    assert Path(doors.__file__).exists()


def test_a_replaced_box_a_revoked_one_and_a_refused_retirement_keep_the_call(world):
    from cloud.model import Decisions
    from cloud.ports import IntentRefusedError
    from fleet.envelope import Hello

    lane = world.lanes[ROOM]
    for storage in ("a" * 32, "b" * 32):
        hello = Hello(
            version=1, kind=world.kind, device_id=ROOM, storage_id=storage, generation=0, boots=1, nonce=storage,
            firmware="x", boot_id=storage,
        )  # fmt: skip
        world.rules.on_hello(lane, hello, world.clock.now_ms(), Decisions())
        assert world.trouble() == ""
    with pytest.raises(IntentRefusedError, match="only be cleared at the origin"):
        world.act(ROOM, "retire", "admin", {})
    world.act(ROOM, "revoke", "admin", {})
    assert world.trouble() == ""
    world.act(ROOM, "reinstate", "admin", {})
    world.event(world.clear)
    assert world.trouble() != ""
