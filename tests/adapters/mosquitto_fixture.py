"""A real Mosquitto on free loopback ports, which tests may kill and start again.

`broker` speaks plain MQTT and lets everybody do everything: for tests of the protocol itself. `production` runs the
configuration of `fleet broker config`; who connects to its `port` takes its TLS from `tls_of`.
"""

import datetime as dt
import os
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from cli.broker import Broker, find_mosquitto, free_port
from cli.demo.stage import make_identities
from fleet.topics import INGESTER_NAME

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
        self.port = free_port()
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


PUBLISHER = "bench.load"
_VARIABLE = "TEST_IDENTITIES_AT_{port}"


class Production:
    """Production's configuration; `port` is the services' one, where `PUBLISHER` may speak for all devices."""

    def __init__(self, folder):
        if find_mosquitto() is None:
            pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")
        _, tls = make_identities(folder, [INGESTER_NAME, PUBLISHER], dt.datetime.now(dt.UTC))
        self._broker = Broker(folder / "broker", tls=tls, persist=False, publisher=PUBLISHER)
        self.port = self._broker.services_port
        self.start, self.kill = self._broker.start, self._broker.kill
        os.environ[_VARIABLE.format(port=self.port)] = str(folder)  # also for an ingester in a process of its own

    def freeze(self, *, frozen):
        """Stop or continue the process: a broker that is there and says nothing."""
        os.kill(self._broker.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def close(self):
        self.kill()
        del os.environ[_VARIABLE.format(port=self.port)]


def tls_of(port, name=INGESTER_NAME):
    """How the identity `name` speaks to the broker at `port`; None if that one is plain."""
    folder = os.environ.get(_VARIABLE.format(port=port))
    if folder is None:
        return None
    context = ssl.create_default_context(cafile=f"{folder}/pki/trust/services.pem")
    context.load_cert_chain(f"{folder}/identities/{name}.pem", f"{folder}/identities/{name}.key")
    return context


@pytest.fixture
def production(tmp_path):
    """A broker of the test's own, as in production."""
    server = Production(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def broker(tmp_path):
    """A broker of the test's own."""
    server = Mosquitto(tmp_path)
    yield server
    server.close()
