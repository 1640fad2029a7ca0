"""`fleet commands` and `fleet keys` on a real SQLite file, and a short `fleet bench forge`."""

import json

import pytest
from cli_support import fleet, one_line
from sqlalchemy import insert, update

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.device_commands.keys import KeyRingFile
from cloud.tables import command, device


@pytest.fixture
def data(tmp_path):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")
    rows = [{"device_id": f"bike-{n:03d}", "kind": "bike", "enrolled_at": 1, "generation": 1} for n in (1, 2)]
    in_database(tmp_path, insert(device), rows)
    return "--data-directory", tmp_path


def in_database(folder, statement, rows=None):
    database = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
    database.write_here(lambda tx: tx.execute(statement, rows) if rows else tx.execute(statement))
    database.close()


def answer_of(*arguments):
    result = fleet(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments):
    result = fleet(*arguments)
    assert result.exit_code in {1, 2}, result.output
    return one_line(result)


def test_a_command_is_sent_shown_listed_and_taken_back(data):
    sent = answer_of("commands", "send", "bike-001", "ring", "-a", "duration_seconds=3", *data)
    assert (sent["status"], sent["arguments"], sent["device_offline"]) == ("queued", {"duration_seconds": 3}, True)
    assert answer_of("commands", "show", sent["id"], *data) == sent
    assert [one["id"] for one in answer_of("commands", "list", "bike-001", "--open", *data)] == [sent["id"]]
    assert answer_of("commands", "list", "bike-001", "--action", "lock", *data) == []
    ended = answer_of("commands", "cancel", sent["id"], *data)
    assert (ended["status"], ended["reason"], ended["final"]) == ("refused", "cancelled", True)
    assert answer_of("commands", "list", "bike-001", "--open", *data) == []
    assert "ring" in fleet("commands", "list", "bike-001", *data).stdout


def test_waiting_tells_how_it_ended(data):
    sent = answer_of("commands", "send", "bike-001", "ring", *data)
    in_database(data[1], update(command).values(status="expired", reason="expired"))
    shown = answer_of("commands", "show", sent["id"], "--wait-s", "1", *data)
    assert (shown["status"], shown["final"]) == ("expired", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["commands", "send", "nobody", "ring"], "nobody"),
        (["commands", "send", "bike-001", "explode"], "understands"),
        (["commands", "send", "bike-001", "ring", "-a", "duration_seconds=99"], "duration_seconds"),
        (["commands", "send", "bike-001", "ring", "-a", "nonsense"], "NAME=VALUE"),
        (["commands", "show", "f" * 32], "f" * 32),
        (["commands", "list", "nobody"], "nobody"),
        (["keys", "retire", "f" * 16], "there is no key"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, arguments, words):
    assert words in refusal(*arguments, *data)


def test_without_a_database_it_says_how_to_get_one(tmp_path):
    for arguments in (["commands", "list", "bike-001"], ["commands", "send", "bike-001", "ring"]):
        assert "fleet serve" in refusal(*arguments, "--data-directory", tmp_path)


def test_a_rotation_from_the_first_key_to_the_second(data, tmp_path):
    before = answer_of("keys", "status", *data)
    (old,) = [key["id"] for key in before["keys"]]
    assert (before["version"], before["devices"], before["never_said"]) == (0, 2, ["bike-001", "bike-002"])
    in_database(tmp_path, update(device).values(command_keys=old))
    assert "only active key" in refusal("keys", "retire", old, "--force", *data)
    rotated = answer_of("keys", "rotate", *data)
    new = rotated["keys"][1]["id"]
    assert answer_of("keys", "status", *data)["missing_newest"] == ["bike-001", "bike-002"]
    assert "bike-001, bike-002" in refusal("keys", "retire", old, *data), "they would be lost"
    in_database(tmp_path, update(device).values(command_keys=" ".join(sorted((old, new)))))
    assert answer_of("keys", "status", *data)["missing_newest"] == []
    retired = answer_of("keys", "retire", old, *data)
    assert retired["version"] > rotated["version"]
    status = answer_of("keys", "status", *data)
    assert status["still_trust_others"] == ["bike-001", "bike-002"]
    assert [key["state"] for key in status["keys"]] == ["retired", "active"]
    in_database(tmp_path, update(device).values(command_keys=new))
    assert [key["id"] for key in answer_of("keys", "remove", old, *data)["keys"]] == [new]
    assert KeyRingFile(tmp_path / "command.key").announced_ids == (new,)
    assert new in fleet("keys", "status", *data).stdout


def test_a_stolen_key_is_removed_by_force_and_who_is_lost_is_named(data, tmp_path):
    (stolen,) = [key["id"] for key in answer_of("keys", "status", *data)["keys"]]
    in_database(tmp_path, update(device).values(command_keys=stolen))
    answer_of("keys", "rotate", *data)
    assert "--force" in refusal("keys", "remove", stolen, *data)
    answer_of("keys", "remove", stolen, "--force", *data)
    assert answer_of("keys", "status", *data)["unreachable"] == ["bike-001", "bike-002"]
    exported = answer_of("keys", "export", tmp_path / "public", *data)
    assert [(tmp_path / "public" / f"{key}.pem").exists() for key in exported["command_keys"]] == [True]
    assert b"PRIVATE" not in next((tmp_path / "public").iterdir()).read_bytes()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_forged_command_is_accepted(seed):
    found = answer_of("bench", "forge", "--codec", 3_000, "--mqtt", 0, "--seed", seed)
    assert found["codec_accepted"] == 0
    assert found["codec_actuations"] == found["codec_legitimate"] == 1
    assert sum(found["codec_by_class"].values()) == 3_000
    assert all(found["codec_by_class"].values())
    answers = found["codec_answers"]
    assert all(answers[name] for name in (
        "ignored_bad_signature", "ignored_unknown_key", "ignored_unreadable", "ignored_wrong_device",
        "refused_expired", "refused_wrong_generation", "refused_untrusted_time", "replayed",
    ))  # fmt: skip


def test_no_forged_command_moves_a_lock_behind_a_broker():
    found = answer_of("bench", "forge", "--codec", 100, "--mqtt", 600)
    assert (found["mqtt_actuations"], found["mqtt_actuations_per_id_max"]) == (found["mqtt_legitimate"], 1)
    assert found["mqtt_legitimate"] == 3


def test_an_edge_that_checks_no_signature_is_found_out(monkeypatch):
    monkeypatch.setattr("fleet.signing._verify", lambda *_: None)
    result = fleet("bench", "forge", "--codec", 500, "--mqtt", 0)
    assert result.exit_code == 1
    assert "forged commands accepted" in result.stderr
