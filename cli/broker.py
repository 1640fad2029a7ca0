"""Mosquitto as our own child: found or installed, configured by us, on loopback, data in a folder of ours."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from cli.broker_configuration import (
    CONFIGURATION_NAME,
    OPENSSL_NAME,
    BrokerPlan,
    BrokerTls,
    plain_configuration,
    write,
)
from cli.processes import guard

__all__ = ["INSTALL_HINT", "Broker", "BrokerError", "BrokerTls", "find_mosquitto", "free_port", "port_taken"]

INSTALL_HINT: Final = "install Mosquitto 2 (Debian/Ubuntu: apt-get install mosquitto; macOS: brew install mosquitto)"
START_S_MAX: Final = 10.0
_PORT_MIN: Final = 16_384
_PORT_ATTEMPTS: Final = 200
_SEARCH_PATH: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


class BrokerError(RuntimeError):
    """The broker is missing or did not start; the text names the fix."""


def find_mosquitto() -> str | None:
    """Path of the `mosquitto` server program."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SEARCH_PATH))
    return shutil.which("mosquitto", path=path)


def find_or_install_mosquitto() -> str:
    """The program; installs it with the system's package manager where that is possible, saying so on stderr."""
    found = find_mosquitto()
    if found is not None:
        return found
    if shutil.which("apt-get") and os.geteuid() == 0:
        _install_with_apt()
    elif shutil.which("brew"):
        print("Mosquitto is missing; installing it with Homebrew …", file=sys.stderr)
        subprocess.run(["brew", "install", "--quiet", "mosquitto"], check=False, stdout=sys.stderr)
    found = find_mosquitto()
    if found is None:
        raise BrokerError(f"Mosquitto is missing and could not be installed: {INSTALL_HINT}")
    return found


def _install_with_apt() -> None:
    print("Mosquitto is missing; installing it with apt-get (its system service stays off) …", file=sys.stderr)
    policy = Path("/usr/sbin/policy-rc.d")
    own_policy = not policy.exists()
    if own_policy:  # the package would start a second broker on the standard port
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-yq", "--no-install-recommends", "mosquitto"],
        ):
            subprocess.run(command, check=False, env=environment, stdout=sys.stderr, stderr=sys.stderr)
    finally:
        if own_policy:
            policy.unlink()


def port_taken(port: int) -> bool:
    """Whether somebody listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A TCP port of the loopback interface that is free now.

    It lies below the ports that the system gives to outgoing connections: hundreds of devices connect while a
    server starts or is started again, and one of them would sooner or later sit on its port.
    """
    for _ in range(_PORT_ATTEMPTS):
        port = random.randrange(_PORT_MIN, _first_ephemeral_port())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BrokerError(f"no free TCP port found above {_PORT_MIN} on 127.0.0.1; end what holds them")


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux; its usual range begins no lower
        return 32_768
    return max(first, _PORT_MIN + 1_000)


class Broker:
    """One Mosquitto process of ours."""

    def __init__(
        self, directory: Path, *, tls: BrokerTls | None = None, port: int | None = None, publisher: str = "",
        persist: bool = True,
    ) -> None:  # fmt: skip
        """With `tls` the configuration of production: `port` is for devices, `services_port` for the cloud.

        Without it both are one listener that is open to everybody on this machine: benches only. `publisher`
        names an identity that may speak for every device: a bench's load, nothing else.
        """
        self.directory = directory
        self.port = port or free_port()
        self.services_port = free_port() if tls is not None else self.port
        self._tls = tls
        self._publisher = publisher
        self._persist = persist
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    @property
    def pid_file(self) -> Path:
        """Where the broker writes its process id."""
        return self.directory / "mosquitto.pid"

    def start(self) -> None:
        """Start it and return once it accepts connections. Raises BrokerError."""
        program = find_or_install_mosquitto()
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = self._configure()
        with (self.directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self.directory / CONFIGURATION_NAME)], stdout=log, stderr=log, process_group=0,
                env={**os.environ, **environment},
            )  # fmt: skip
        guard.watch(self._process, self.directory)
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if port_taken(self.services_port) and port_taken(self.port):
                return
            time.sleep(0.02)
        words = (self.directory / "mosquitto.log").read_text(errors="replace")[-500:]
        raise BrokerError(f"Mosquitto did not start on port {self.port}: {words.strip() or 'no message'}")

    def _configure(self) -> dict[str, str]:
        """Write the configuration; returns variables of its environment."""
        # It reads keys that only we can read, and listens on loopback only.
        user = "root" if os.geteuid() == 0 else ""
        if self._tls is None:
            text = plain_configuration(self.directory, self.port, persist=self._persist, user=user)
            (self.directory / CONFIGURATION_NAME).write_text(text)
            return {}
        plan = BrokerPlan(
            directory=self.directory.resolve(), tls=self._tls, devices_port=self.port,
            services_port=self.services_port, address="127.0.0.1", persist=self._persist,
            pid_file=self.pid_file.resolve(), log="stderr", user=user, publisher=self._publisher,
        )  # fmt: skip
        write(plan, self.directory)
        return {"OPENSSL_CONF": str(self.directory.resolve() / OPENSSL_NAME)}

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
