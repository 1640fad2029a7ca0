"""Supervision of an edge box: the manager hears of us, what is stuck starves the watchdog, a dead task ends all."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.notify import ServiceManager
from edge.records import JournalCorruptError, JournalError
from edge.supervision import EXIT_CODE, LastResort, supervised
from edge.vitals import LineVitals
from edge.watchdog import Watchdog, journal_answers
from tests.edge_support import Rig, doorbell_kind, eventually

TREE = Path(__file__).parent.parent.parent


class Manager:
    """What systemd is to a service: a datagram socket."""

    def __init__(self, folder):
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)

    def heard(self):
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(scope="module", autouse=True)
def doorbell():
    with doorbell_kind() as kind:
        yield kind


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    made = Manager(Path())
    yield made
    made.socket.close()


def test_the_manager_hears_ready_alive_and_stopping(manager, tmp_path):
    service = ServiceManager(str(tmp_path / "notify") if len(str(tmp_path)) < 90 else "notify")
    service.ready("all\nwell")
    service.alive("x" * 500)
    service.unwell("disk")
    service.stopping()
    ready, alive, unwell, stopping = manager.heard()
    assert ready == "READY=1\nSTATUS=all well"
    assert alive.startswith("WATCHDOG=1\nSTATUS=xxx")
    assert len(alive) < 250
    assert unwell == "STATUS=disk"
    assert stopping == "STOPPING=1"


@pytest.mark.parametrize(
    ("environment", "listens", "watchdog_s"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": "nonsense"}, False, None),
        ({"NOTIFY_SOCKET": "/run/x"}, True, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "60000000"}, True, 60.0),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, True, 0.5),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "43"}, True, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"}, True, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, True, None),
        ({"WATCHDOG_USEC": "500000"}, False, None),
    ],
)
def test_the_manager_is_read_from_the_environment(environment, listens, watchdog_s):
    found = ServiceManager.from_environment(environment, 42)
    assert (found.listens, found.watchdog_s) == (listens, watchdog_s)


def test_without_a_manager_nothing_happens():
    ServiceManager().alive("well")
    ServiceManager("/nowhere/at/all").alive("well")  # one that is being restarted itself


async def healthy():
    return None


async def test_it_is_fed_while_everything_moves_and_starved_by_a_stuck_line(manager):
    busy = {"bike-001": 0.0}
    watchdog = Watchdog(ServiceManager("notify"), healthy, lambda: busy, lambda: "fine", line_work_s_max=30.0)
    watchdog._manager._address = str(manager.path)
    await watchdog.look(0.1)
    assert manager.heard() == ["WATCHDOG=1\nSTATUS=fine"]
    busy["bike-001"] = 31.0
    await watchdog.look(0.1)
    (said,) = manager.heard()
    assert "WATCHDOG" not in said
    assert "bike-001 has been at one piece of work for 31 s" in said
    busy["bike-001"] = 0.0
    await watchdog.look(0.1)
    assert manager.heard() == ["WATCHDOG=1\nSTATUS=fine"]
    assert watchdog.stuck == ""


@pytest.mark.parametrize("error", [JournalError("full"), JournalCorruptError("damaged"), RuntimeError("shut")])
async def test_a_journal_that_says_no_is_not_stuck(error):
    async def refusing():
        raise error

    assert await journal_answers(refusing, 0.1)


async def test_a_journal_thread_that_hangs_starves_the_watchdog_of_the_real_host(tmp_path, manager):
    rig = Rig(tmp_path)
    release = threading.Event()
    async with rig.running():
        watchdog = Watchdog(
            ServiceManager(str(manager.path)), lambda: rig.host.journal.read(lambda _: None), dict, lambda: "fine"
        )
        await watchdog.look(1.0)
        assert watchdog.stuck == ""
        hanging = asyncio.get_running_loop().run_in_executor(rig.host.journal._thread, release.wait)
        try:
            await watchdog.look(0.05)
            assert "journal" in watchdog.stuck
        finally:
            release.set()
            await hanging
        await watchdog.look(1.0)
        assert watchdog.stuck == ""
    fed, starved, again = manager.heard()
    assert fed.startswith("WATCHDOG=1")
    assert again.startswith("WATCHDOG=1")
    assert "WATCHDOG" not in starved


async def test_the_line_is_busy_only_while_it_works_and_its_state_is_known(tmp_path):
    now = [0.0]
    vitals = LineVitals(lambda: now[0])
    with vitals.working():
        now[0] = 40.0
        assert vitals.busy_s == 40.0
    assert vitals.busy_s == 0.0
    rig = Rig(tmp_path)
    async with rig.running():
        vitals = rig.agent.vitals
        assert vitals.is_open
        assert vitals.busy_s == 0.0
        rig.bell.say("press 1")
        await eventually(lambda: vitals.heard_s is not None)


async def test_a_dying_task_is_told_before_the_clean_up_and_damage_is_not_a_death():
    deaths = []

    async def die(error):
        raise error

    for error in (ValueError("bug"), ExceptionGroup("several", [ValueError("bug")])):
        with pytest.raises(type(error)):
            await supervised(die(error), deaths.append)
    assert len(deaths) == 2
    for error in (JournalCorruptError("x"), ExceptionGroup("several", [JournalCorruptError("x")])):
        with pytest.raises(type(error)):
            await supervised(die(error), deaths.append)
    assert len(deaths) == 2


def test_the_last_resort_leaves_once_and_soon(caplog):
    left, codes = threading.Event(), []
    last_resort = LastResort(lambda code: (codes.append(code), left.set()), goodbye_s=0.01)
    with caplog.at_level(logging.CRITICAL):
        last_resort(ValueError("bug"))
        last_resort(ValueError("another"))
    assert left.wait(2)
    assert codes == [EXIT_CODE]
    assert "a task died" in caplog.text


DYING = """
import random, sys, time
from pathlib import Path
from cli.clock import SystemClock
import edge.agent, edge.run
from edge.settings import load_settings

async def die(self, driver):  # a bug in one of the agent's tasks, while another one refuses to be cancelled
    import asyncio
    await asyncio.sleep(0.1)
    print(time.monotonic(), flush=True)
    raise ValueError("injected")

async def hang(self, driver):
    import asyncio
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

assert edge.agent.EdgeAgent._run_acknowledged and edge.agent.EdgeAgent._run_line
edge.agent.EdgeAgent._run_acknowledged = die
edge.agent.EdgeAgent._run_line = hang
edge.run.main(load_settings(Path(sys.argv[1])), SystemClock(), random.Random(1))
"""
CONFIG = """
device_id = "room-001"
kind = "nursing_room"
transport = "serial:/dev/null"
data_directory = "data"
[broker]
host = "127.0.0.1"
port = 1
plain = true
[command_keys]
main = "main.pem"
"""


def test_a_task_that_dies_ends_the_process_within_a_second_whatever_hangs(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "main.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    config = tmp_path / "edge.toml"
    config.write_text(CONFIG)
    ended = subprocess.run(
        [sys.executable, "-u", "-c", DYING, str(config)], cwd=TREE, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    gone_s = time.monotonic()
    died_s, code, said = float(ended.stdout), ended.returncode, ended.stderr
    assert code == EXIT_CODE
    assert gone_s - died_s < 1.5, "0.8 s of goodbye, the rest is this machine's load"
    assert "injected" in said
