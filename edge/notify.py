"""The service manager's socket (systemd's sd_notify protocol): ready, alive, status, stopping.

Without a service manager there is no `NOTIFY_SOCKET`, and nothing happens.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

MICROSECONDS_PER_SECOND: Final = 1_000_000
_STATUS_CHARACTERS_MAX: Final = 200


class ServiceManager:
    """Sends datagrams to who started this process; every call is harmless without one."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`watchdog_s`: the manager restarts the process when it has not heard `alive` for so long; None: never."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], process_id: int) -> "ServiceManager":
        """As systemd describes itself to its services; a watchdog meant for another process is none."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", "")
        ours = not meant or meant == str(process_id)
        if not ours or not microseconds.isdecimal() or not int(microseconds):
            return cls(address)
        return cls(address, int(microseconds) / MICROSECONDS_PER_SECOND)

    @property
    def listens(self) -> bool:
        """Whether anybody hears us."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The start is over."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def alive(self, status: str) -> None:
        """Everything that must make progress does."""
        self._send(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def unwell(self, status: str) -> None:
        """Say why the watchdog is not fed."""
        self._send(f"STATUS={_line(status)}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A manager that is being restarted itself must not end the service.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.connect(self._address)
            out.send(text.encode())


def _line(text: str) -> str:
    return " ".join(text.split())[:_STATUS_CHARACTERS_MAX]


def service_manager() -> ServiceManager:
    """The one that started this process."""
    return ServiceManager.from_environment(os.environ, os.getpid())
