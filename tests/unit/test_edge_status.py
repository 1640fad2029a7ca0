"""`fleet edge status`: a running agent answers on its socket, and every finding names its fix."""

import asyncio
import json
import logging
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from cli import edge_status
from cli.app import app
from cli.edge_findings import Situation, judge
from edge.disk import BoundSettings, disk_use, figures_without_agent, remove_old_damage
from edge.logs import LogSettings, RecentErrors, configure
from edge.report import Report
from edge.settings import SettingsError, load_settings
from edge.status import ANSWER_BYTES_MAX, NoAnswerError, answering, ask
from edge.watchdog import Watchdog
from fleet.envelope import Lane
from tests.edge_support import DEVICE, Rig, doorbell_kind, eventually

CONFIG = """
device_id = "bell-001"
kind = "doorbell"
transport = "serial:/dev/null"
data_directory = "."
[broker]
host = "127.0.0.1"
plain = true
[command_keys]
main = "main.pem"
"""


@pytest.fixture(scope="module", autouse=True)
def doorbell():
    with doorbell_kind() as kind:
        yield kind


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "edge.toml").write_text(CONFIG)
    return load_settings(tmp_path / "edge.toml")


def situation(**changes):
    agent = {
        "version": "0.1.0", "running_for_s": 1000.0, "memory_mb": 40.0, "stuck": "", "problems": 0,
        "recent_problems": [], "journal": {"reserve_rows": 0},
        "link": {"connected": True, "welcomed_for_s": 900.0, "last_welcome_s": 900.0, "error": "", "broker": "b:8883"},
        "clock": {"trusted": True, "off_by_s": 0.2},
        "line": {"address": "serial:/dev/ttyUSB0", "open": True, "open_for_s": 900.0, "heard_s": 3.0, "error": ""},
    }  # fmt: skip
    lane = {"rows": 0, "bytes": 0, "evicted": 0, "oldest_at": None}
    fields = {
        "agent": agent, "journal": {"lanes": {name.value: dict(lane) for name in Lane}, "set_aside": 0},
        "now_ms": 1_800_000_000_000, "disk_used_bytes": 1_000_000, "disk_bound_bytes": 240_000_000,
        "disk_free_bytes": 10**10, "certificate_days": 80.0, "service": "fleet-edge@bike-001.service",
    }  # fmt: skip
    for path, value in changes.items():
        *folders, name = path.split("__")
        place = fields
        for folder in folders:
            place = place[folder]
        place[name] = value
    return Situation(**fields)


def test_a_box_that_is_well_has_nothing_to_mend():
    findings = judge(situation())
    assert {found.verdict for found in findings} == {"ok"}
    assert {"Agent", "Line", "Link", "Clock", "Journal", "Disk", "Certificate"} == {found.check for found in findings}


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "words"),
    [
        ({"agent": None, "silence": "nobody"}, "Agent", "problem", "nobody"),
        ({"agent__stuck": "the journal's thread"}, "Progress", "problem", "thread"),
        ({"agent__memory_mb": 120.0}, "Agent", "warning", "120"),
        ({"agent__recent_problems": [{"at": "now", "text": "line failed"}]}, "Words", "warning", "line failed"),
        ({"agent__line__open": False, "agent__line__error": "No such file"}, "Line", "problem", "No such file"),
        ({"agent__line__heard_s": None}, "Line", "warning", "nothing heard"),
        ({"certificate_days": -3.0}, "Certificate", "problem", "expired 3 days"),
        ({"certificate_days": 12.0}, "Certificate", "warning", "12 days"),
        ({"certificate_days": None, "certificate_error": "unreadable"}, "Certificate", "problem", "unreadable"),
        ({"agent__link__connected": False, "agent__link__error": "refused"}, "Link", "problem", "refused"),
        ({"agent__link__connected": False, "agent__link__last_welcome_s": 5.0}, "Link", "warning", "last welcomed"),
        ({"agent__clock__trusted": False}, "Clock", "warning", "not vouched"),
        ({"agent__clock__off_by_s": 3e8}, "Clock", "warning", "300000000"),
        ({"journal": None, "journal_error": "no such table"}, "Journal", "problem", "no such table"),
        ({"journal__lanes__event__oldest_at": 1_799_990_000_000}, "Journal", "problem", "event for 3 h"),
        ({"journal__lanes__telemetry__evicted": 7}, "Evicted", "warning", "7 messages"),
        ({"journal__set_aside": 2}, "Set aside", "warning", "2 messages"),
        ({"agent__journal__reserve_rows": 3}, "Reserve", "problem", "3 emergencies"),
        ({"disk_free_bytes": 1_000_000}, "Disk", "problem", "1 MB free"),
        ({"disk_used_bytes": 300_000_000}, "Disk", "warning", "300.0 MB"),
    ],
)
def test_every_trouble_is_found_and_has_a_fix(changes, check, verdict, words):
    found = {found.check: found for found in judge(situation(**changes))}[check]
    assert found.verdict == verdict
    assert words in found.found
    assert found.fix


def telling(document):
    async def describe():
        return document

    return describe


def report_of(rig, settings):
    recent = RecentErrors()
    watchdog = Watchdog(None, None, dict, str)
    return Report(settings, rig.host, watchdog, recent, rig.clock), recent


async def test_a_running_agent_tells_how_it_is(tmp_path, settings):
    rig = Rig(tmp_path)
    report, _ = report_of(rig, settings)
    assert report._live()["link"] is None, "before the agent is there"
    async with rig.running():
        async with answering(settings.status_path, report.document):
            assert settings.status_path.stat().st_mode & 0o777 == 0o600
            document = await asyncio.to_thread(ask, settings.status_path)
            assert document["device_id"] == DEVICE
            assert document["link"]["connected"] is True
            assert document["clock"] == {"trusted": True, "off_by_s": document["clock"]["off_by_s"]}
            assert abs(document["clock"]["off_by_s"]) < 5
            assert document["line"]["open"] is True
            assert document["memory_mb"] > 10
            status = await asyncio.to_thread(edge_status.look, settings)
            assert status.healthy, [found for found in status.findings if found.verdict == "problem"]
            assert json.loads(json.dumps(status.document()))["agent"]["device_id"] == DEVICE
        assert not settings.status_path.exists()
    with pytest.raises(NoAnswerError, match="no agent answers"):
        ask(settings.status_path)


async def test_what_waits_is_counted_per_lane_without_the_agent(tmp_path, settings):
    rig = Rig(tmp_path)
    rig.cloud.welcomes = True
    rig.link.up = False
    async with rig.running(connected=False):
        rig.bell.say("O " + "a" * 32)
        await eventually(lambda: rig.agent.counts["events"] == 1)
    status = edge_status.look(settings)
    assert not status.healthy
    assert status.situation.agent is None
    lanes = status.situation.journal["lanes"]
    assert sum(lane["rows"] for lane in lanes.values()) >= 1
    assert all((lane["oldest_at"] is not None) == bool(lane["rows"]) for lane in lanes.values())
    assert {found.check for found in status.findings if found.verdict == "problem"} >= {"Agent"}


async def test_a_socket_in_a_deep_folder_of_a_killed_process_is_taken_over(tmp_path):
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    path = deep / "status.sock"
    path.write_text("left by somebody")
    async with answering(path, telling({"a": "中"})):
        assert await asyncio.to_thread(ask, path) == {"a": "中"}


async def test_an_agent_that_hangs_or_babbles_is_no_answer(tmp_path):
    path = tmp_path / "status.sock"
    async with answering(path, telling(["no", "object"])):
        with pytest.raises(NoAnswerError, match="something else"):
            await asyncio.to_thread(ask, path)
    async with answering(path, telling({"a": "x" * (2 * ANSWER_BYTES_MAX)})):
        with pytest.raises(NoAnswerError):
            await asyncio.to_thread(ask, path)
    async with answering(path, telling({})):
        with pytest.raises(NoAnswerError, match="does not answer"):
            ask(path, 0.05)  # in the event loop's own thread, so that nobody can answer


async def test_without_a_socket_the_agent_works_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        async with answering(tmp_path / "missing" / "status.sock", telling({})):
            pass
    assert "will find nobody" in caplog.text


def test_a_journal_that_is_none_is_an_error_and_no_table(tmp_path):
    with pytest.raises(Exception, match="unable to open"):
        figures_without_agent(tmp_path / "journal.sqlite", DEVICE)
    assert not (tmp_path / "journal.sqlite").exists()


def test_damaged_journals_are_bounded(tmp_path):
    journal = tmp_path / "journal.sqlite"
    for number in range(1, 5):
        for suffix in ("", "-wal"):
            (tmp_path / f"journal.sqlite.damaged-{number}{suffix}").write_bytes(bytes(10_000))
    import os

    for number in range(1, 5):
        os.utime(tmp_path / f"journal.sqlite.damaged-{number}", (number, number))
    assert disk_use(tmp_path).used_bytes >= 80_000
    gone = remove_old_damage(journal, 2)
    assert [path.name[-1] for path in gone] == ["1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "journal.sqlite.damaged-3", "journal.sqlite.damaged-3-wal", "journal.sqlite.damaged-4",
        "journal.sqlite.damaged-4-wal",
    ]  # fmt: skip


async def test_the_disk_bound_holds_while_an_endless_outage_fills_the_journal(tmp_path):
    from edge.journal import Journal

    bounds = BoundSettings(journal_mb=1, damaged_journals_max=0)
    journal = Journal(tmp_path / "journal.sqlite", bounds=bounds.journal)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(journal.run())
        await journal.register(DEVICE, lambda _: None)
        for first in range(0, 6_000, 500):  # six times as much as may stay
            await asyncio.gather(
                *(journal.append(DEVICE, Lane.TELEMETRY, first + one, bytes(1_000)) for one in range(500))
            )
        used = disk_use(tmp_path).used_bytes
        journal.close()
        await running
    journal.shut()
    assert 900_000 < used <= bounds.disk_bytes_max
    figures = figures_without_agent(tmp_path / "journal.sqlite", DEVICE)["lanes"]["telemetry"]
    assert figures["bytes"] <= 1_000_000
    assert figures["evicted"] > 4_000


def test_log_files_stay_small_and_the_last_words_are_kept(tmp_path):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        recent = configure(LogSettings(file=tmp_path / "logs" / "edge.log", bytes_max=10_000, files_max=2))
        for number in range(500):
            logging.getLogger("edge").warning("line %d is broken: %s", number, "x" * 100)
        for _ in range(3):
            logging.getLogger("edge").error("the same again")
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 20_000
    lines = recent.lines()
    assert recent.total == 503
    assert len(lines) == 10
    assert [line["text"] for line in lines].count("the same again") == 1


def test_under_a_service_manager_words_have_priorities(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure(LogSettings(), {"JOURNAL_STREAM": "8:1"})
        logging.getLogger("edge").error("bad\nand more")
        logging.getLogger("edge").info("fine")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert capsys.readouterr().err.splitlines() == ["<3>edge: bad", "<3>and more", "<6>edge: fine"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[log]\nlevel = 'LOUD'", ["log.level", "LOUD"]),
        ("[log]\nbytes_max = 1", ["log.bytes_max", "10000"]),
        ("[bounds]\njournal_mb = 0", ["bounds.journal_mb"]),
        ("[bounds]\njornal_mb = 5", ["bounds.jornal_mb", "spelling"]),
    ],
)
def test_wrong_bounds_are_one_line(tmp_path, more, words):
    (tmp_path / "edge.toml").write_text(CONFIG + more)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "edge.toml")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def fleet(*arguments):
    """In this process: a start of Python for each would be most of the time."""
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    return SimpleNamespace(returncode=ended.exit_code, stdout=ended.stdout, stderr=ended.stderr)


@pytest.fixture
def box(tmp_path):
    public = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "main.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    config = tmp_path / "edge.toml"
    config.write_text(CONFIG.replace("doorbell", "bike").replace("/dev/null", "/dev/ttyUSB77"))
    return config


def test_status_and_check_end_with_three_when_something_needs_mending(box):
    ended = fleet("edge", "status", "--config", box, "--json")
    assert ended.returncode == 3
    document = json.loads(ended.stdout)
    assert document["healthy"] is False
    assert document["findings"][0]["check"] == "Agent"
    assert all(found["fix"] for found in document["findings"] if found["verdict"] == "problem")
    ended = fleet("edge", "check", "--config", box, "--json")
    assert ended.returncode == 3
    found = {found["check"]: found for found in json.loads(ended.stdout)["findings"]}
    assert found["Line"]["verdict"] == "problem"
    assert found["Broker"]["verdict"] == "problem"
    assert found["Keys"]["verdict"] == "ok"
    for command in ("status", "check", "install", "run"):
        ended = fleet("edge", command, "--config", "/nowhere/edge.toml")
        assert ended.returncode == 2
        assert "/nowhere/edge.toml" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_the_short_form_takes_no_command_behind_its_option(box):
    ended = fleet("edge", "--config", box, "status")
    assert ended.returncode == 2
    assert "fleet edge status --config" in ended.stderr
