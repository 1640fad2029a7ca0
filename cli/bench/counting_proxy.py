"""A TCP proxy that counts what crosses it, as bytes and as the packets this machine's kernel made of them."""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

HEADER_BYTES: Final = 52
"""IPv4 (20) and TCP with timestamps (32), as Linux sends them; SYNs carry 8 more, which is left out."""
SEGMENT_BYTES_MAX: Final = 1_400
"""What a mobile network leaves for data; loopback takes 64 kB, so longer writes are charged the missing packets."""
CLOSE_PACKETS: Final = 3
"""The kernel is asked while a connection lives; of the two FINs and their acknowledgements at most these come after."""
READ_BYTES: Final = 65_536
_TCP_INFO_BYTES: Final = 144
_SEGMENTS: Final = struct.Struct("=II")  # tcpi_segs_out, tcpi_segs_in of linux/tcp.h
_SEGMENTS_AT: Final = 136


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counted so far, both directions together."""

    connections: int = 0
    writes: int = 0
    data_bytes: int = 0
    packets: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        """What came after `before`."""
        return Traffic(
            self.connections - before.connections, self.writes - before.writes, self.data_bytes - before.data_bytes,
            self.packets - before.packets,
        )  # fmt: skip

    @property
    def wire_bytes(self) -> int:
        """With headers."""
        return self.data_bytes + self.packets * HEADER_BYTES


class CountingProxy:
    """`async with CountingProxy(port) as proxy:` forwards `proxy.port` to `port` on this machine."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._counted = Traffic()
        self._open: set[socket.socket] = set()
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def traffic(self) -> Traffic:
        """On the side of the agent, up to now."""
        return replace(self._counted, packets=self._counted.packets + sum(map(_packets, self._open)))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    def _count(self, *, connections: int = 0, writes: int = 0, data_bytes: int = 0, packets: int = 0) -> None:
        counted = self._counted
        self._counted = Traffic(
            counted.connections + connections, counted.writes + writes, counted.data_bytes + data_bytes,
            counted.packets + packets,
        )  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        self._count(connections=1)
        self._open.add(connection)
        with suppress(OSError, ExceptionGroup, asyncio.CancelledError):  # the bench is over
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, onward_writer, connection))
                group.create_task(self._pump(onward_reader, writer, connection))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: socket.socket
    ) -> None:
        try:
            while data := await reader.read(READ_BYTES):
                missing = -(-len(data) // SEGMENT_BYTES_MAX) - 1
                self._count(writes=1, data_bytes=len(data), packets=2 * missing)  # and their acknowledgements
                writer.write(data)
                await writer.drain()
        finally:
            if connection in self._open:
                self._open.remove(connection)
                self._count(packets=_packets(connection) + CLOSE_PACKETS)
            writer.close()


def _packets(connection: socket.socket) -> int:
    """Packets of a living connection so far, both directions, acknowledgements included."""
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return sum(_SEGMENTS.unpack_from(information, _SEGMENTS_AT))
