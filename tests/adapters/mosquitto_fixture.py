"""A real Mosquitto on a free loopback port, which tests may kill and start again."""

import os
import shutil
import socket
import subprocess

import pytest

CONF = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
user root
max_queued_messages 0
max_inflight_messages 0
{extra}
"""


class Mosquitto:
    def __init__(self, folder, extra=""):
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            pytest.skip(
                "Mosquitto is not installed (mosquitto is not on PATH); `make test` installs it when it is root"
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        (folder / "mosquitto.conf").write_text(CONF.format(port=self.port, extra=extra))
        self.start()

    def start(self):
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError((self._folder / "mosquitto.log").read_text()) from None
            else:
                return

    def kill(self):
        self._process.kill()
        self._process.wait(10)

    def freeze(self, *, frozen):
        """Stop or continue the process: a broker that is there and says nothing."""
        self._process.send_signal(19 if frozen else 18)

    def close(self):
        if self._process.poll() is None:
            self.kill()


@pytest.fixture
def broker(tmp_path):
    """A broker of the test's own."""
    server = Mosquitto(tmp_path)
    yield server
    server.close()
