"""Publishing boards to a Grafana: everything once, nothing twice, nobody's work overwritten, every refusal in words."""

import copy
import json
import socket

import pytest
from grafana_fake import grafana_fake
from typer.testing import CliRunner

from cli.app import app
from dashboards.build import build_all

UID = "fleet-bike"
BOARDS = {uid: board for uid, board in build_all("en").items() if uid in {UID, "fleet-overview"}}
SOURCE_TOKEN = "reader-" + "token"


@pytest.fixture
def grafana():
    with grafana_fake("/grafana") as fake:
        yield fake


@pytest.fixture
def run(grafana, tmp_path, monkeypatch):
    """Runs a command of `fleet dashboards` against it; returns (exit code, JSON or text, words on stderr)."""
    monkeypatch.setattr("dashboards.build.build_all", lambda _language: BOARDS)  # built once; forty runs use them

    def command(name, *options, token="admin-token", as_json=True, url=grafana.url):
        path = tmp_path / "token"
        path.write_text(token + "\n")
        arguments = ["dashboards", name, "--url", url, "--token-file", str(path), "--language", "en", *options]
        result = CliRunner().invoke(app, [*arguments, *(["--json"] if as_json else [])])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        shown = json.loads(result.stdout) if as_json and result.stdout.strip() else result.stdout
        return result.exit_code, shown, " ".join(result.stderr.split())

    return command


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "reader"
    path.write_text(SOURCE_TOKEN)
    return ("--source-url", "http://influxdb:8086", "--source-token-file", str(path))


def steps_of(document, verb):
    steps = document["steps"] if isinstance(document, dict) else document
    return {(step["what"], step["name"]) for step in steps if step["verb"] == verb}


def the_step(document, name):
    steps = document["steps"] if isinstance(document, dict) else document
    (step,) = [step for step in steps if step["name"] == name]
    return step


def test_an_empty_grafana_gets_everything_and_the_second_run_changes_nothing(grafana, run, source):
    code, shown, _ = run("publish", *source, "--application-url", "https://fleet.example/")
    assert code == 0
    assert shown["done"] == shown["to_do"] == len(shown["steps"]) == len(BOARDS) + 3
    assert set(grafana.boards) == set(BOARDS)
    assert {kept["folderUid"] for kept in grafana.boards.values()} == {"fleet"}
    assert grafana.permissions["fleet"] == [{"role": "Viewer", "permission": 1}, {"role": "Editor", "permission": 1}]
    stored = grafana.sources["fleet"]
    assert stored["jsonData"]["httpHeaderName1"] == "Authorization"
    assert stored["secureJsonData"] == {"httpHeaderValue1": f"Token {SOURCE_TOKEN}"}
    for uid, kept in grafana.boards.items():
        assert kept["dashboard"]["panels"] == BOARDS[uid]["panels"]
        chosen = {
            one["name"]: (one.get("current") or {}).get("value") for one in kept["dashboard"]["templating"]["list"]
        }
        assert chosen["datasource"] == "fleet"
        assert chosen.get("application", "https://fleet.example") == "https://fleet.example"
    written = list(grafana.writes)
    code, shown, words = run("publish", *source, "--application-url", "https://fleet.example/")
    assert (code, shown["to_do"], shown["done"]) == (0, 0, 0)
    assert grafana.writes == written
    assert run("diff", *source, "--application-url", "https://fleet.example/")[0] == 0
    assert SOURCE_TOKEN not in words + json.dumps(shown)


def test_a_dry_run_shows_everything_and_writes_nothing(grafana, run, source):
    code, shown, words = run("publish", *source, "--dry-run")
    assert (code, shown["dry_run"], shown["done"]) == (0, True, 0)
    assert steps_of(shown, "create") >= {("folder", "Fleet"), ("data source", "fleet"), ("board", UID)}
    assert grafana.writes == []
    assert "nothing written" in words


def test_the_difference_names_panel_and_query_and_ends_with_3(grafana, run):
    run("publish")
    board = copy.deepcopy(grafana.boards[UID]["dashboard"])
    first, second, gone = board["panels"][0], board["panels"][1], board["panels"].pop()
    first["targets"][0]["query"] = "SELECT 1"
    second["title"] = "Renamed"
    grafana.boards[UID]["dashboard"] = board
    title = BOARDS[UID]["panels"][0]["title"]
    code, text, _ = run("diff", as_json=False)
    assert code == 3
    lines = [line.strip() for line in text.splitlines()]
    assert f"~ panel “{title}”: query A" in lines
    assert "- SELECT 1" in lines
    assert any(line.startswith("+ SELECT ") for line in lines)
    assert f"+ panel “{gone['title']}”" in lines
    assert any("Renamed" in line and BOARDS[UID]["panels"][1]["title"] in line for line in lines)
    assert (
        sum(line.startswith(("+ board", "~ board", "- board")) for line in lines) == 1
    )  # the other boards are as they were
    code, shown, _ = run("publish")
    assert code == 0
    assert steps_of(shown, "update") == {("board", UID)}
    assert run("diff")[0] == 0


def test_what_grafana_adds_when_it_saves_is_no_difference(grafana, run):
    run("publish")
    stored = grafana.boards[UID]["dashboard"]
    stored |= {
        "iteration": 17,
        "liveNow": False,
        "weekStart": "",
        "schemaVersion": 42,
        "timepicker": {},
        "preload": False,
    }
    for panel in stored["panels"]:
        panel["pluginVersion"] = "11.6.1"
    stored["templating"]["list"][0]["current"] = {"text": "fleet", "value": "fleet"}
    assert run("diff")[0] == 0


def test_a_board_changed_by_hand_is_left_alone_until_asked(grafana, run):
    run("publish")
    panels = copy.deepcopy(grafana.boards[UID]["dashboard"]["panels"])
    panels[0]["description"] = "what we agreed on Monday"
    grafana.save_by_hand(UID, who="zhang.min", panels=panels)
    code, shown, words = run("publish")
    assert code == 1
    step = the_step(shown, UID)
    assert step["verb"] == "refuse"
    assert "zhang.min" in step["words"]
    assert "--overwrite-edits" in step["words"]
    assert [change["path"] for change in step["changes"]] == ["description"]
    assert "nothing was written" in words
    assert grafana.boards[UID]["dashboard"]["panels"][0]["description"] == "what we agreed on Monday"
    code, shown, _ = run("publish", "--overwrite-edits")
    assert (code, shown["done"]) == (0, 1)
    assert grafana.boards[UID]["dashboard"]["panels"] == BOARDS[UID]["panels"]


def test_a_foreign_board_with_our_uid_or_title_is_never_overwritten(grafana, run):
    foreign = {"uid": UID, "title": "My bikes", "tags": ["private"], "panels": []}
    grafana.import_board(foreign)
    code, shown, _ = run("publish", "--overwrite-edits", "--prune")
    assert code == 1
    assert "not ours" in the_step(shown, UID)["words"]
    assert grafana.writes == []
    del grafana.boards[UID]
    run("publish")
    del grafana.boards[UID]
    title = BOARDS[UID]["title"]
    grafana.import_board({"uid": "abc", "title": title, "tags": [], "panels": []}, "fleet")
    code, shown, _ = run("publish")
    assert code == 1
    assert "(uid abc)" in the_step(shown, UID)["words"]
    assert UID not in grafana.boards
    grafana.boards["abc"]["folderUid"] = ""  # moved away, as the words said
    assert run("publish")[0] == 0
    assert grafana.boards["abc"]["dashboard"]["title"] == title


def test_a_foreign_folder_or_data_source_of_our_name_is_not_taken(grafana, run, source):
    grafana.folders["xyz"] = {"uid": "xyz", "title": "Fleet", "version": 1}
    grafana.sources["old"] = {"uid": "old", "name": "fleet", "type": "influxdb", "url": "http://elsewhere"}
    code, shown, _ = run("publish", *source)
    assert code == 1
    assert "--folder-uid xyz" in the_step(shown, "Fleet")["words"]
    assert "--source-uid old" in the_step(shown, "fleet")["words"]
    assert grafana.writes == []
    code, _, _ = run("publish", "--folder-uid", "xyz", "--source-uid", "old")
    assert code == 0
    assert set(grafana.folders) == {"xyz"}


def test_a_data_source_is_corrected_and_its_token_renewed_on_demand(grafana, run, source):
    run("publish", *source)
    grafana.sources["fleet"]["url"] = "http://old:8086"
    code, shown, _ = run("publish", *source)
    assert code == 0
    (change,) = the_step(shown, "fleet")["changes"]
    assert (change["path"], change["before"], change["after"]) == ("url", "http://old:8086", "http://influxdb:8086")
    grafana.sources["fleet"]["secureJsonData"] = {}
    assert steps_of(run("publish", *source)[1], "update") == {("data source", "fleet")}
    assert grafana.sources["fleet"]["secureJsonData"]
    assert steps_of(run("publish", *source, "--renew-token")[1], "update") == {("data source", "fleet")}
    grafana.sources["fleet"] |= {"readOnly": True, "url": "http://provisioned:8086"}
    code, shown, _ = run("publish", *source)
    assert code == 0
    assert the_step(shown, "fleet")["verb"] == "leave"
    grafana.sources["fleet"]["type"] = "prometheus"
    assert run("publish", *source)[0] == 1


def test_permissions_keep_who_was_named_and_change_only_the_roles(grafana, run):
    run("publish")
    grafana.permissions["fleet"] = [{"teamId": 7, "permission": 2}, {"role": "Editor", "permission": 2}]
    code, shown, _ = run("publish")
    assert code == 0
    assert {tuple(one.values()) for one in the_step(shown, "viewer may view, editor may view")["changes"]} == {
        ("~", "permissions", "Viewer", "nothing", "view"),
        ("~", "permissions", "Editor", "edit", "view"),
    }
    assert {"teamId": 7, "permission": 2} in grafana.permissions["fleet"]
    assert {"role": "Editor", "permission": 1} in grafana.permissions["fleet"]


def test_boards_of_the_past_are_named_and_deleted_on_demand(grafana, run):
    run("publish")
    grafana.import_board({"uid": "fleet-tram", "title": "Trams", "tags": ["gaoxin-fleet"], "panels": []}, "fleet")
    grafana.import_board({"uid": "tagged", "title": "Copy", "tags": ["gaoxin-fleet"], "panels": []}, "")
    code, shown, _ = run("publish")
    assert code == 0
    assert steps_of(shown, "leave") == {("board", "fleet-tram")}
    code, shown, _ = run("publish", "--prune")
    assert code == 0
    assert "fleet-tram" not in grafana.boards
    assert "tagged" in grafana.boards
    assert run("publish", "--prune", "--board", UID)[0] == 2


def test_one_board_alone(grafana, run):
    code, _, _ = run("publish", "--board", UID)
    assert code == 0
    assert set(grafana.boards) == {UID}
    assert run("publish", "--board", "fleet-tram")[0] == 2


def test_somebody_who_saves_at_the_same_moment_is_not_overwritten(grafana, run):
    run("publish")
    grafana.boards[UID]["dashboard"]["title"] = "old title"
    grafana.before_write.append(lambda: grafana.save_by_hand(UID, description="mine"))
    code, shown, words = run("publish")
    assert code == 1
    assert "somebody saved it meanwhile" in words
    assert "412" in shown["problem"]
    assert grafana.boards[UID]["dashboard"]["description"] == "mine"
    assert run("publish")[0] == 1  # now it is a board changed by hand
    assert run("publish", "--overwrite-edits")[0] == 0


def test_a_provisioned_board_is_changed_in_its_file(grafana, run):
    run("publish")
    grafana.boards[UID]["provisioned"] = True
    assert run("publish")[0] == 0
    grafana.boards[UID]["dashboard"]["title"] = "old title"
    code, shown, _ = run("publish")
    assert code == 1
    assert "provisioning file" in the_step(shown, UID)["words"]


@pytest.mark.parametrize("tells_rights", [True, False])
def test_a_token_without_rights_is_told_before_or_at_the_first_write(grafana, run, tells_rights):
    grafana.tokens |= {"viewer-token": "viewer", "editor-token": "editor"}
    grafana.tells_rights = tells_rights
    code, shown, words = run("publish", token="viewer-token")
    assert code == 1
    assert "role Admin" in (json.dumps(shown) if tells_rights else words)
    assert grafana.writes == []
    code, shown, _ = run("publish", token="editor-token")
    assert code == 1
    if tells_rights:
        assert grafana.writes == []
    assert run("publish", "--no-permissions", token="editor-token")[0] == 0
    assert set(grafana.boards) == set(BOARDS)


def test_a_wrong_token_says_where_to_make_one(run):
    code, shown, words = run("publish", token="wrong")
    assert (code, shown) == (1, "")
    assert "401" in words
    assert "Service accounts" in words
    assert "wrong" not in words.replace("what is wrong", "")


@pytest.mark.parametrize("command", ["diff", "publish"])
def test_a_failing_grafana_is_told_and_a_second_run_finishes(grafana, run, command):
    grafana.fails.append(("GET", "/folders/fleet", 500, "database is locked"))
    code, _, words = run(command)
    assert code == 1
    assert "HTTP 500" in words
    assert "database is locked" in words
    grafana.fails.append(("POST", "/dashboards/db", 500, "database is locked"))
    if command == "publish":
        code, shown, words = run("publish")
        assert (code, shown["done"]) == (1, 2)
        assert "(2 of" in words
        code, shown, _ = run("publish")
        assert (code, shown["done"]) == (0, len(BOARDS))


@pytest.mark.parametrize(
    ("version", "code"), [("10.4.2", 1), ("11.0.0", 0), ("11.6.1", 0), ("12.3.0", 0), ("", 0)]
)  # fmt: skip
def test_an_old_grafana_is_refused(grafana, run, version, code):
    grafana.version = version
    found, _, words = run("publish", "--dry-run")
    assert found == code
    assert ("upgrade Grafana" in words) == (code == 1)


def test_what_is_no_grafana_and_what_is_not_there(grafana, run):
    code, _, words = run("diff", url=grafana.url.removesuffix("/grafana"))
    assert code == 1
    assert "no Grafana" in words
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code, _, words = run("diff", url=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert code == 1
    assert "cannot be reached" in words
    assert run("diff", url="ftp://x")[0] == 2


def test_wrong_options_are_usage_errors(run, grafana, tmp_path):
    assert run("publish", token="")[0] == 2
    assert run("publish", "--source-url", "http://influxdb:8086")[0] == 2
    missing = CliRunner().invoke(
        app, ["dashboards", "diff", "--url", grafana.url, "--token-file", str(tmp_path / "no")]
    )
    assert missing.exit_code == 2
    assert "cannot be read" in missing.stderr
