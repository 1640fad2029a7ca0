"""One simulated device on a pseudo-terminal, for an edge agent that opens a real serial port.

Like a UART, it has a small buffer and loses bytes when nobody reads: hardware repeats what matters.
"""

import asyncio
import os
import tty
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from firmware_sim.line import MemoryLine

BUFFER_BYTES_MAX: Final = 65_536
_READ_BYTES: Final = 4_096


class PseudoSerial:
    """`async with PseudoSerial(line) as port:` serves the line at `port.path` (and at `link`, if given)."""

    def __init__(self, line: MemoryLine, link: Path | None = None) -> None:
        self.path = ""
        self.lost_bytes = 0
        """Bytes of the hardware that found the buffer full."""
        self._line = line
        self._link = link
        self._pending = bytearray()
        self._master = self._slave = -1

    async def __aenter__(self) -> Self:
        self._master, self._slave = os.openpty()  # our own end of the slave keeps the port alive between openings
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.path)
        asyncio.get_running_loop().add_reader(self._master, self._on_readable)
        self._line.attach(self._to_driver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.detach()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        os.close(self._master)
        os.close(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        self._line.from_driver(data)

    def _to_driver(self, data: bytes) -> None:
        room = BUFFER_BYTES_MAX - len(self._pending)
        self.lost_bytes += max(0, len(data) - room)
        self._pending += data[: max(0, room)]
        self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            written = os.write(self._master, self._pending)
        except BlockingIOError:
            written = 0
        del self._pending[:written]
        if self._pending:
            loop.add_writer(self._master, self._flush)
        else:
            loop.remove_writer(self._master)
