"""`fleet orders` on a real database file."""

import json

import pytest
from sqlalchemy import insert, update
from typer.testing import CliRunner

from cli.app import app
from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from tests.unit.dispatch_cases import NOW, add_people


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEET_DATA_DIRECTORY", str(tmp_path))
    database = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    database.write_here(tables.metadata.create_all)
    database.write_here(lambda tx: add_people(tx, ("li", "crew"), ("boss", "admin")))
    for device_id, retired_at in (("bike-001", None), ("bike-002", NOW)):
        values = {"kind": "bike", "latitude": 38.86, "longitude": 121.52, "enrolled_at": NOW, "retired_at": retired_at}
        database.write_here(
            lambda tx, device_id=device_id, values=values: tx.execute(
                insert(tables.device).values(device_id=device_id, **values)
            )
        )
    yield database
    database.close()


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["orders", *arguments, "--json"])
    assert result.exit_code == code, result.output + result.stderr
    return json.loads(result.stdout) if code == 0 else result.stderr


def test_an_order_by_hand_through_its_life(folder):
    made = run("make", "bike-001", "Saddle", "--item", "saddle=1", "--key", "k")
    assert (made["state"], made["assigned_to"], made["items"]) == ("assigned", "li", {"saddle": 1})
    assert run("make", "bike-001", "Saddle", "--key", "k")["id"] == made["id"]
    short = made["id"][:8]
    assert [one["id"] for one in run("list")] == [made["id"]]
    assert run("list", "--overdue") == []
    for act in ("accept", "travel", "start"):
        run(act, short)
    assert "Scan the device's code" in run("complete", short, code=1)
    assert "needs a reason" in run("hold", short, "--note", "x", code=2)
    held = run("hold", short, "--reason", "waiting_part", "--note", "ordered")
    assert held["paused"]
    assert run("resume", short)["state"] == "assigned"
    assert run("priority", short, "high", "--note", "visit")["priority"] == "high"
    assert run("note", short, "key at the desk")["notes"][0]["text"] == "key at the desk"
    proven = update(tables.work_order).values(scanned_at=NOW, scanned_by="li")
    folder.write_here(lambda tx: tx.execute(proven))
    for act in ("accept", "travel", "start", "complete"):
        done = run(act, short)
    assert done["state"] == "done"
    assert run("kpi", "--days", "30")["total"]["done"] == 1
    assert run("show", short)["transitions"][-1]["event"] == "complete"


@pytest.mark.usefixtures("folder")
def test_what_is_refused_says_so():
    assert "retired" in run("make", "bike-002", "Saddle", code=1)
    assert "bike-999" in run("make", "bike-999", "Saddle", code=1)
    assert "ARTICLE=COUNT" in run("make", "bike-001", "Saddle", "--item", "x", code=2)
    assert "nothing" in run("show", "nothing", code=1)


@pytest.mark.usefixtures("folder")
def test_codes_rounds_and_plans(tmp_path):
    found = run("code", "bike-001", "--svg", str(tmp_path / "code.svg"))
    assert found["link"].endswith(f"/scan/{found['code']}")
    assert (tmp_path / "code.svg").read_bytes().startswith(b"<?xml")
    assert run("code", "bike-001")["code"] == found["code"]
    run("make", "bike-001", "Refill", "--skill", "restock", "--item", "rice=4")
    planned = run("plan", "--now")
    assert [len(one["stops"]) for one in planned["rounds"]] == [1]
    assert run("pick-list", "li")["total"] == {"rice": 4}
    changed = run("preventive", "room-fridge-check", "--every-days", "14", "--switch", "off")
    assert (changed[0]["period_days"], changed[0]["enabled"]) == (14, False)
    assert len(run("preventive")) == 2
