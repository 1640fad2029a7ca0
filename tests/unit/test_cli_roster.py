"""`fleet roster`: who is on duty, from a terminal."""

import json

import pytest
from cli_support import fleet, one_line
from sqlalchemy import insert, select

from cloud.adapters.sql.database import SqlDatabase
from cloud.tables import audit, contact_point, metadata, person

TABLE = """梯队,人员,开始,结束,重复
当班,li,{day} 00:00,24:00,每天
第二梯队,an,{day} 00:00,24:00,每天
值班经理,zhang,{day} 00:00,24:00,每天
"""


@pytest.fixture
def data(tmp_path):
    database = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    database.write_here(metadata.create_all)

    def people(tx):
        for login, role in (("li", "crew"), ("an", "crew"), ("sun", "crew"), ("zhang", "admin")):
            tx.execute(
                insert(person).values(
                    id=f"person-{login}", login=login, name=login.title(), role=role, password_hash="", created_at=0
                )
            )
            tx.execute(
                insert(contact_point).values(
                    id=login, person_id=f"person-{login}", channel="sms", address="1", created_at=0, verified_at=0
                )
            )

    database.write_here(people)
    database.close()
    return "--data-directory", tmp_path


@pytest.fixture
def file(data):
    from datetime import UTC, datetime

    path = data[1] / "roster.csv"
    today = json.loads(fleet("roster", "now", "--json", *data).stdout)["at"] / 1000
    path.write_text(TABLE.format(day=f"{datetime.fromtimestamp(today - 90_000, UTC):%Y-%m-%d}"), encoding="gb18030")
    return path


def test_a_roster_is_looked_at_brought_in_checked_and_saved(data, file):
    dry = fleet("roster", "import", file, "--dry-run", "--json", *data)
    assert (dry.exit_code, json.loads(dry.stdout)["imported"]) == (0, False)
    assert json.loads(fleet("roster", "now", "--json", *data).stdout)["planned"] is False
    result = fleet("roster", "import", file, *data)
    assert (result.exit_code, "Imported" in result.stderr) == (0, True), result.output
    now = json.loads(fleet("roster", "now", "--json", *data).stdout)
    assert [[one["name"] for one in tier["people"]] for tier in now["tiers"]] == [["Li"], ["An"], ["Zhang"]]
    check = fleet("roster", "check", "--days", "14", "--json", *data)
    assert (check.exit_code, json.loads(check.stdout)["ok"]) == (0, True)
    shown = json.loads(fleet("roster", "show", "--days", "2", "--person", "li", "--json", *data).stdout)
    assert {one["person_id"] for one in shown["shifts"]} == {"person-li"}
    calendar = data[1] / "roster.ics"
    assert fleet("roster", "export", calendar, *data).exit_code == 0
    again = json.loads(fleet("roster", "import", calendar, "--replace", "--json", *data).stdout)
    assert (again["unchanged_count"], again["added"], again["removed"]) == (3, [], [])
    table = fleet("roster", "export", *data)
    assert table.stdout.lstrip("\ufeff").startswith("id,tier,person,crew,from,until")


def test_a_hole_gives_exit_code_1_and_is_named(data, file):
    file.write_text("\n".join(file.read_text(encoding="gb18030").splitlines()[:3]), encoding="utf-8")
    fleet("roster", "import", file, *data)
    result = fleet("roster", "check", "--json", *data)
    (hole,) = json.loads(result.stdout)["findings"]
    assert (result.exit_code, hole["what"], hole["tier"]) == (1, "uncovered", "duty_manager")
    plain = fleet("roster", "check", *data)
    assert (plain.exit_code, "duty_manager" in plain.stdout) == (1, True)
    assert "hole" in fleet("roster", "now", *data).stderr


def test_bad_lines_are_named_and_nothing_is_imported(data, file):
    file.write_text(file.read_text(encoding="gb18030").replace("an,", "nobody,"), encoding="gb18030")
    result = fleet("roster", "import", file, *data)
    first, last = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert first.startswith("line 3: there is no person 'nobody'")
    assert "nothing was imported" in last
    assert json.loads(fleet("roster", "now", "--json", *data).stdout)["planned"] is False


def test_a_shift_is_taken_over_in_the_name_of_the_command_line(data, file):
    fleet("roster", "import", file, *data)
    result = fleet("roster", "take-over", "--from", "li", "--to", "sun", "--json", *data)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["shifts"][0]["stands_in_for_name"] == "Li"
    now = json.loads(fleet("roster", "now", "--json", *data).stdout)
    assert [one["name"] for one in now["tiers"][0]["people"]] == ["Sun"]
    refused = fleet("roster", "take-over", "--from", "an", "--to", "sun", *data)
    assert (refused.exit_code, "on duty already" in one_line(refused)) == (1, True)
    database = SqlDatabase(f"sqlite:///{data[1] / 'state.db'}")
    lines = database.read_here(lambda tx: tx.execute(select(audit.c.actor, audit.c.action)).all())
    database.close()
    assert [tuple(line) for line in lines] == [("command-line", "roster.import"), ("command-line", "roster.take_over")]


def test_crews_are_made_and_filled(data):
    options = ("--name-zh", "北区", "--name-en", "North", "--latitude", 38.87, "--longitude", 121.52)
    made = fleet("roster", "crew", "north", *options, "--vehicle-capacity", 40, "--json", *data)
    assert made.exit_code == 0, made.output
    fleet("roster", "member", "li", "--crew", "north", "--skills", "repair,battery", *data)
    (north,) = json.loads(fleet("roster", "crews", "--json", *data).stdout)["crews"]
    assert (north["vehicle_capacity"], [(one["login"], one["skills"]) for one in north["members"]]) == (
        40,
        [("li", ["battery", "repair"])],
    )


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("import", "gone.csv"), 2, "gone.csv"),
        (("member", "li", "--skills", "magic"), 2, "magic"),
        (("member", "nobody"), 1, "nobody"),
        (("crew", "No!", "--name-zh", "x", "--name-en", "x", "--latitude", "1", "--longitude", "1",
          "--vehicle-capacity", "1"), 2, "No!"),
        (("take-over", "--from", "li", "--to", "sun", "--at", "tomorrow"), 2, "tomorrow"),
        (("show", "--person", "nobody"), 1, "nobody"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_told_in_one_line(data, arguments, exit_code, words):
    result = fleet("roster", *arguments, *data)
    assert (result.exit_code, words in one_line(result)) == (exit_code, True)


def test_without_a_database_or_with_a_wrong_zone_it_says_what_to_do(data, tmp_path):
    nowhere = fleet("roster", "now", "--data-directory", tmp_path / "empty")
    assert (nowhere.exit_code, "fleet serve" in one_line(nowhere)) == (2, True)
    wrong = fleet("roster", "now", *data, FLEET_ROSTER_TIME_ZONE="Moon/Base")
    assert (wrong.exit_code, "roster_time_zone" in one_line(wrong)) == (2, True)
