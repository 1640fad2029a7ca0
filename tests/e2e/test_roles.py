"""Three roles as processes on one real PostgreSQL and Mosquitto; and two ingesters on one broker.

Presses go on all the time. What happened is the simulators' own log, what was told is the receiver's.
"""

import threading
import time

import pytest
from installation import Installation

pytest_plugins = ("tests.adapters.postgres_fixture",)
pytestmark = [pytest.mark.postgresql, pytest.mark.mosquitto, pytest.mark.e2e]

NOTIFIED_MS_MAX = 2000


@pytest.fixture
def installation(tmp_path, postgresql_url):
    with Installation(tmp_path, postgresql_url) as one:
        yield one


def test_three_roles_work_together_and_survive_the_death_of_one(installation):
    it = installation
    data = it.serve("ingest", "ingest")
    it.serve("dispatch", "dispatch")
    it.serve("api", "api")
    it.simulate()
    it.wait("all roles to be ready", lambda: all(it.is_ready(name) for name in ("ingest", "dispatch", "api")))
    assert set(it.check("dispatch")) == {"database"}
    crew = it.sign_in("crew")
    heard = Stream(crew)
    it.wait("the devices to connect", it.connected)

    since_s = time.monotonic()
    it.wait("a few notified presses", lambda: len(it.notified(since_s)) >= 5)
    # Told by another process than the one that took the press.
    assert max(it.notified(since_s).values()) < NOTIFIED_MS_MAX

    call = it.wait("an open call", lambda: open_calls(crew))[0]
    began = time.monotonic()
    answer = crew.post(f"/api/v1/calls/{call['id']}/acknowledge")
    assert answer.status_code in {200, 204}, answer.text
    assert time.monotonic() - began < 2
    assert call["id"] not in {one["id"] for one in open_calls(crew)}

    answer = crew.post("/api/v1/devices/bike-001/commands", json={"action": "ring"})
    assert answer.status_code == 202, answer.text
    began = time.monotonic()
    command = crew.get(f"/api/v1/commands/{answer.json()['id']}", params={"wait_s": 10}).json()
    assert command["status"] == "succeeded", command
    assert time.monotonic() - began < 5
    it.wait("live changes of other processes on an open page", lambda: {"call", "command", "inbox"} <= heard.topics)

    it.children["ingest"].kill()
    killed_after = len(it.truths().presses)
    it.wait("presses that nobody hears", lambda: len(it.truths().presses) >= killed_after + 3)
    it.children["ingest"].start()
    it.wait("the ingester to be back", lambda: it.is_ready("ingest"))
    it.wait("presses after it", lambda: len(it.truths().presses) >= killed_after + 6)
    it.finish(data)
    heard.close()


def test_the_shards_of_a_killed_ingester_are_taken_over_without_loss(installation):
    it = installation
    first = it.serve("first", "ingest", "--shards", "0-31", directory="data-first")
    second = it.serve("second", "ingest", "--shards", "32-63", directory="data-second")
    it.serve("dispatch", "dispatch", directory="data-dispatch")
    it.simulate()
    it.wait("all to be ready", lambda: all(it.is_ready(name) for name in ("first", "second", "dispatch")))
    assert sorted(it.owners().values()) == [32, 32]
    it.wait("the devices to connect", it.connected)
    it.wait("presses", lambda: len(it.notified()) >= 3)

    # Both end, one by force; the one that starts again is told to take everything and waits for the dead one's lease.
    it.children["first"].kill()
    it.children["second"].stop()
    it.serve("second", "ingest", "--shards", "0-63", directory="data-second")
    it.wait("the overlap to be refused", lambda: it.check("second").get("ingest", "").startswith("another"))
    it.wait("the takeover", lambda: it.is_ready("second"), 30)
    assert list(it.owners().values()) == [64]
    taken_over = it.marks()

    # The dead one comes back: its shards are another's now, its spool is still its own to drain.
    it.children["first"].start()
    it.wait("presses after it", lambda: len(it.notified()) >= 8)
    it.wait("it to be told to wait", lambda: it.check("first").get("ingest", "").startswith("another"))
    it.finish(first, second)
    marks = it.marks()
    assert all(marks[device_id] >= mark for device_id, mark in taken_over.items())

    # Given back, it replays its old spool into twins that went on meanwhile: nothing moves back.
    it.children["second"].stop()
    it.wait("the first one to have its shards again", lambda: it.is_ready("first"), 10)
    assert it.marks() == marks
    assert it.gaps() == 0


def open_calls(client):
    answer = client.get("/api/v1/calls")
    assert answer.status_code == 200, answer.text
    return [call for call in answer.json()["calls"] if call["state"] == "calling"]


class Stream:
    """An open page: topics of the changes it was told."""

    def __init__(self, client):
        self.topics = set()
        self._client = client
        self._closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with self._client.stream("GET", "/api/v1/stream", timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    self.topics.add(line.removeprefix("event: "))
                if self._closed:
                    return

    def close(self):
        self._closed = True
        self._thread.join(20)
