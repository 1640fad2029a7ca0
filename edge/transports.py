"""Lines to the hardware: serial port or pseudo-terminal, TCP, and a pair in memory. All speak plain bytes."""

import asyncio
import os
from collections import deque
from contextlib import suppress
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

LINE_BUFFER_BYTES_MAX: Final = 64 * 1024
_READ_BYTES: Final = 4096


class Line(Protocol):
    """A byte line that may break and be opened again."""

    async def open(self) -> None:
        """Make it ready; raises OSError."""
        ...

    async def read(self) -> bytes:
        """What has arrived, at least one byte; empty when the line has ended. Raises OSError."""
        ...

    def write(self, data: bytes) -> None:
        """Send; what a broken or clogged line does not take is lost, and the hardware's protocol repeats it."""
        ...

    def close(self) -> None:
        """Release it; `open` may follow."""
        ...


class _Inbox:
    """Bytes on their way in, bounded."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self.ended = False
        self.dropped_bytes = 0

    def put(self, data: bytes) -> None:
        if self._size + len(data) > LINE_BUFFER_BYTES_MAX:
            self.dropped_bytes += len(data)
            return
        self._chunks.append(data)
        self._size += len(data)
        self._filled.set()

    def end(self) -> None:
        self.ended = True
        self._filled.set()

    async def get(self) -> bytes:
        while not self._chunks and not self.ended:
            self._filled.clear()
            await self._filled.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        return data


class MemoryLine:
    """One end of a line inside the process; made by `memory_pair`."""

    def __init__(self) -> None:
        self._inbox = _Inbox()
        self.peer: MemoryLine | None = None

    @property
    def dropped_bytes(self) -> int:
        """Bytes for this end that were lost because nobody read them."""
        return self._inbox.dropped_bytes

    async def open(self) -> None:
        """Begin again after `cut`."""
        self._inbox.ended = False

    async def read(self) -> bytes:
        """See Line."""
        return await self._inbox.get()

    def write(self, data: bytes) -> None:
        """See Line."""
        if self.peer is not None and not self._inbox.ended:
            self.peer._inbox.put(data)  # noqa: SLF001  # the other end of the same pair

    def close(self) -> None:
        """Nothing is held."""

    def cut(self) -> None:
        """End this end's reading, as an unplugged cable does."""
        self._inbox.end()


def memory_pair() -> tuple[MemoryLine, MemoryLine]:
    """Two ends of one line."""
    first, second = MemoryLine(), MemoryLine()
    first.peer, second.peer = second, first
    return first, second


class TcpLine:
    """A hardware gateway (or simulator) reached over TCP."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """See Line."""
        self.close()
        self._streams = await asyncio.open_connection(self._host, self._port, limit=LINE_BUFFER_BYTES_MAX)

    async def read(self) -> bytes:
        """See Line."""
        return await self._streams[0].read(_READ_BYTES) if self._streams else b""

    def write(self, data: bytes) -> None:
        """See Line."""
        if self._streams and not self._streams[1].is_closing():
            transport = self._streams[1].transport
            if transport.get_write_buffer_size() + len(data) <= LINE_BUFFER_BYTES_MAX:
                self._streams[1].write(data)

    def close(self) -> None:
        """See Line."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


class SerialLine:
    """A serial port or pseudo-terminal in raw mode, 8N1."""

    def __init__(self, device: str, baud: int = 115_200) -> None:
        self._device = device
        self._baud = baud
        self._file: int | None = None
        self._inbox = _Inbox()
        self._outgoing = bytearray()

    async def open(self) -> None:
        """See Line."""
        import termios  # noqa: PLC0415  # not on every system, and only needed with a real port
        import tty  # noqa: PLC0415

        self.close()
        speed = getattr(termios, f"B{self._baud}", None)
        if speed is None:
            raise OSError(f"{self._device}: {self._baud} baud is not supported")
        file = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(file)
            attributes = termios.tcgetattr(file)
            attributes[4] = attributes[5] = speed
            attributes[2] |= termios.CLOCAL | termios.CREAD
            termios.tcsetattr(file, termios.TCSANOW, attributes)
        except termios.error as error:
            os.close(file)
            raise OSError(f"{self._device}: {error}") from error
        self._file = file
        self._inbox = _Inbox()
        asyncio.get_running_loop().add_reader(file, self._on_readable)

    def _on_readable(self) -> None:
        assert self._file is not None
        try:
            data = os.read(self._file, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # the other end of a pseudo-terminal is gone, or the adapter was unplugged
            data = b""
        if data:
            self._inbox.put(data)
        else:
            asyncio.get_running_loop().remove_reader(self._file)
            self._inbox.end()

    async def read(self) -> bytes:
        """See Line."""
        return await self._inbox.get()

    def write(self, data: bytes) -> None:
        """See Line."""
        if self._file is None or len(self._outgoing) + len(data) > LINE_BUFFER_BYTES_MAX:
            return
        self._outgoing += data
        self._flush()

    def _flush(self) -> None:
        assert self._file is not None
        loop = asyncio.get_running_loop()
        try:
            written = os.write(self._file, self._outgoing)
        except BlockingIOError:
            written = 0
        except OSError:
            self._outgoing.clear()
            self._inbox.end()
            written = 0
        del self._outgoing[:written]
        if self._outgoing:
            loop.add_writer(self._file, self._flush)
        else:
            loop.remove_writer(self._file)

    def close(self) -> None:
        """See Line."""
        if self._file is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._file)
            loop.remove_writer(self._file)
            with suppress(OSError):
                os.close(self._file)
            self._file = None
            self._outgoing.clear()


def line_from(address: str) -> Line:
    """The line named by `serial:/dev/ttyUSB0?baud=115200` or `tcp://host:port`.

    Raises:
        ValueError: the text names no line.
    """
    parts = urlsplit(address)
    if parts.scheme == "serial" and parts.path:
        baud = parse_qs(parts.query).get("baud", ["115200"])[-1]
        if not baud.isdigit():
            raise ValueError(f"baud rate {baud!r} is no number")
        return SerialLine(parts.path, int(baud))
    if parts.scheme == "tcp" and parts.hostname and parts.port:
        return TcpLine(parts.hostname, parts.port)
    raise ValueError(f"{address!r} names no line; write serial:/dev/ttyUSB0?baud=115200 or tcp://host:port")
