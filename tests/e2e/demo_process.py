"""`fleet demo` as a stranger runs it: a process, what it prints, and its HTTP API."""

import json
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from cli.broker import find_mosquitto

TREE = Path(__file__).parent.parent.parent
START_S_MAX = 60.0
END_S_MAX = 75.0
_URL = re.compile(r"Running after [0-9.]+ s: (http://\S+)")
_LOGIN = re.compile(r"sign in as (\S+) / (\S+)")


def needs_mosquitto():
    """Skip loudly where there is none; `fleet demo` itself would install it."""
    if find_mosquitto() is None:
        pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")


def fleet(*arguments, env=None, timeout=60):
    """Run one `fleet` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], cwd=TREE, env=env, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


class DemoProcess:
    """`with DemoProcess(directory, "--count", "bike=2") as demo:` everything is up; leaving ends it."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.words = ""
        self._options = options
        self._process = None
        self._result = None
        self._clients = {}

    def __enter__(self):
        needs_mosquitto()
        command = [
            sys.executable,
            "-m",
            "cli.main",
            "demo",
            "--json",
            "--port",
            "0",
            "--directory",
            str(self.directory),
        ]
        self._process = subprocess.Popen(
            [*command, *self._options], cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            self._read_until(lambda: len(_LOGIN.findall(self.words)) == 3, START_S_MAX)
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        self.base_url = _URL.search(self.words).group(1)
        self.logins = dict(_LOGIN.findall(self.words))
        return self

    def __exit__(self, kind, error, _trace=None):
        for client in self._clients.values():
            client.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if error is not None and not self._process.stderr.closed:
            self._explain(self._process.stderr.read().decode())
        self._process.stdout.close()
        self._process.stderr.close()

    def _explain(self, last_words):
        """What a failed test wants to see; pytest shows it."""
        print(self.words + last_words)
        for log in sorted(self.directory.glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")

    def _read_until(self, holds, within_s):
        deadline = time.monotonic() + within_s
        while not holds():
            ready, _, _ = select.select([self._process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            chunk = self._process.stderr.read1() if ready else b""
            self.words += chunk.decode()
            if not chunk:
                raise AssertionError(f"the demo did not come so far in {within_s:.0f} s or ended:\n{self.words}")

    def as_person(self, login):
        """HTTP client of one of the printed people."""
        if login not in self._clients:
            client = self._clients[login] = httpx.Client(base_url=self.base_url, timeout=30)
            answer = client.post("/api/v1/session", json={"login": login, "password": self.logins[login]})
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return self._clients[login]

    def get(self, path, login="admin"):
        """JSON answer of a GET."""
        answer = self.as_person(login).get(path)
        answer.raise_for_status()
        return answer.json()

    def wait_for(self, path, holds, within_s=40.0):
        """Ask again and again until the answer pleases; returns it."""
        deadline = time.monotonic() + within_s
        while True:
            found = self.get(path)
            if holds(found):
                return found
            assert time.monotonic() < deadline, f"{path} still says {found} after {within_s:.0f} s"
            time.sleep(0.2)

    def end(self):
        """Ctrl-C, unless it ends by itself (`--for`): (exit code, the JSON document, words)."""
        if "--for" not in self._options:
            self._process.send_signal(signal.SIGINT)
        document, words = self._process.communicate(timeout=END_S_MAX)
        self.words += words.decode()
        return self._process.returncode, json.loads(document or b"null"), self.words
