"""Lines to the hardware: serial port or pseudo-terminal, TCP, and a pair in memory. All speak plain bytes."""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Final, Literal, Protocol, cast
from urllib.parse import parse_qs, urlsplit

from fleet.clock import Clock, ManualClock

LINE_BUFFER_BYTES_MAX: Final = 64 * 1024
_READ_BYTES: Final = 4096
CONNECT_S_MAX: Final = 10.0
SILENT_PEER_MS_MAX: Final = 30_000
"""A gateway that was switched off sends no end of the connection: what we sent must be taken within this."""
_TIOCSRS485: Final = 0x542F
_RS485_LAYOUT: Final = struct.Struct("=8I")  # struct serial_rs485 of linux/serial.h
_RS485_ENABLED: Final = 1
_RS485_RTS_ON_SEND: Final = 2


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


def _notice_silence(connection: socket.socket) -> None:
    """End a connection whose other side vanished, whether or not we have something to say."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", SILENT_PEER_MS_MAX),
    ):  # fmt: skip
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class TcpLine:
    """A hardware gateway (or simulator) reached over TCP."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """See Line."""
        self.close()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                self._streams = await asyncio.open_connection(self._host, self._port, limit=LINE_BUFFER_BYTES_MAX)
        except TimeoutError as error:
            raise OSError(f"{self._host}:{self._port} does not answer") from error
        _notice_silence(self._streams[1].get_extra_info("socket"))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialOptions:
    """How the port is set up; the same names as in the address."""

    baud: int = 115_200
    parity: Literal["none", "even", "odd"] = "none"
    stop: Literal[1, 2] = 1
    rs485: bool = False
    """The kernel drives the transceiver's direction pin (RTS) while it sends; the port's driver must support it."""
    rts_before_ms: int = 0
    rts_after_ms: int = 0


class SerialLine:
    """A serial port or pseudo-terminal in raw mode, eight bits; held alone, and opened again after an unplugging."""

    def __init__(self, device: str, options: SerialOptions | None = None) -> None:
        self.device = device
        self.options = options or SerialOptions()
        self._file: int | None = None
        self._inbox = _Inbox()
        self._outgoing = bytearray()

    async def open(self) -> None:
        """See Line."""
        import termios  # noqa: PLC0415  # not on every system, and only needed with a real port

        self.close()
        file = os.open(self.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._claim(file)
            self._set_up(file)
        except termios.error as error:
            os.close(file)
            raise OSError(f"{self.device}: {error}") from error
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._inbox = _Inbox()
        asyncio.get_running_loop().add_reader(file, self._on_readable)

    def _claim(self, file: int) -> None:
        """Two readers of one port each get half of the bytes; minicom and pyserial respect the same lock."""
        import fcntl  # noqa: PLC0415

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"{self.device} is in use by another process; stop it") from error

    def _set_up(self, file: int) -> None:
        import termios  # noqa: PLC0415
        import tty  # noqa: PLC0415

        options = self.options
        speed = getattr(termios, f"B{options.baud}", None)
        if speed is None:
            raise OSError(f"{self.device}: {options.baud} baud is not supported")
        tty.setraw(file)
        attributes = termios.tcgetattr(file)
        attributes[4] = attributes[5] = speed
        attributes[2] &= ~(termios.PARENB | termios.PARODD | termios.CSTOPB)
        attributes[2] |= termios.CLOCAL | termios.CREAD
        if options.parity != "none":
            attributes[2] |= termios.PARENB | (termios.PARODD if options.parity == "odd" else 0)
        if options.stop == 2:
            attributes[2] |= termios.CSTOPB
        termios.tcsetattr(file, termios.TCSANOW, attributes)
        if options.rs485:
            self._drive_direction(file)

    def _drive_direction(self, file: int) -> None:
        import fcntl  # noqa: PLC0415

        options = self.options
        request = _RS485_LAYOUT.pack(
            _RS485_ENABLED | _RS485_RTS_ON_SEND, options.rts_before_ms, options.rts_after_ms, *(0,) * 5
        )
        try:
            fcntl.ioctl(file, _TIOCSRS485, request)
        except OSError as error:
            raise OSError(
                f"{self.device} cannot switch the direction of RS-485 ({error.strerror}); "
                "remove rs485=1 if the adapter does it by itself"
            ) from error

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


EXAMPLE: Final = "serial:/dev/ttyUSB0?baud=115200, tcp://host:port or bridge:module:function"


def line_from(address: str, hardware: Mapping[str, object] | None = None, clock: Clock | None = None) -> Line:
    """The line an address names.

    - `serial:/dev/ttyUSB0?baud=9600&parity=even&stop=2&rs485=1&rts_before_ms=1&rts_after_ms=1`
    - `tcp://host:port`
    - `bridge:module:function`: what `function(hardware, clock)` returns; see docs/hardware.md

    Raises:
        ValueError: the text names no line, or the bridge refuses its settings.
    """
    parts = urlsplit(address)
    if parts.scheme == "serial" and parts.path:
        return SerialLine(parts.path, _serial_options(parts.query))
    if parts.scheme == "tcp" and parts.hostname and parts.port:
        return TcpLine(parts.hostname, parts.port)
    if parts.scheme == "bridge":
        return _bridge(parts.path, hardware or {}, clock or ManualClock())
    raise ValueError(f"{address!r} names no line; write {EXAMPLE}")


def _serial_options(query: str) -> SerialOptions:
    found = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := sorted(found.keys() - {field.name for field in fields(SerialOptions)}):
        raise ValueError(f"{unknown[0]!r} is no option of a serial line")

    def number(name: str, default: int) -> int:
        value = found.get(name, str(default))
        if not value.isdecimal():
            raise ValueError(f"{'baud rate' if name == 'baud' else name} {value!r} is no number")
        return int(value)

    parity, stop, rs485 = found.get("parity", "none"), number("stop", 1), number("rs485", 0)
    if parity not in ("none", "even", "odd"):
        raise ValueError(f"parity {parity!r} is none of none, even, odd")
    if stop not in (1, 2):
        raise ValueError(f"stop {stop} is neither 1 nor 2")
    if rs485 not in (0, 1):
        raise ValueError(f"rs485 {rs485} is neither 0 nor 1")
    return SerialOptions(
        baud=number("baud", 115_200),
        parity=cast("Literal['none', 'even', 'odd']", parity),
        stop=1 if stop == 1 else 2,
        rs485=rs485 == 1,
        rts_before_ms=number("rts_before_ms", 0),
        rts_after_ms=number("rts_after_ms", 0),
    )


def _bridge(name: str, hardware: Mapping[str, object], clock: Clock) -> Line:
    module_name, _, function_name = name.partition(":")
    try:
        create = getattr(import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"bridge {name!r} cannot be loaded ({error}); name module:function") from error
    return cast("Line", create(hardware, clock))
