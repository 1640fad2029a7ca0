"""A TCP proxy on loopback with bad weather: cut, delay, reset, freeze. It passes TLS through untouched."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

from fleet.randomness import Randomness

CHUNK_BYTES: Final = 16_384
CHUNKS_UNDER_WAY_MAX: Final = 256


@dataclass(slots=True)
class Weather:
    """What happens to connections from now on.

    `one_way_s_max`: each chunk is late by up to this, in order; `reset_share` of new connections are reset at a random
    moment within `reset_within_s`; `refusing` closes new connections at once; `frozen` passes nothing and says nothing.
    """

    one_way_s_min: float = 0.0
    one_way_s_max: float = 0.0
    reset_share: float = 0.0
    reset_within_s: float = 30.0
    refusing: bool = False
    frozen: bool = False


class Proxy:
    """`async with Proxy(target_port, randomness) as proxy:` listens on `proxy.port`."""

    def __init__(self, target_port: int, randomness: Randomness, port: int = 0) -> None:
        self.port = port
        self.weather = Weather()
        self.counts: Counter[str] = Counter()
        self._target_port = target_port
        self._randomness = randomness
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.reset()
        self.counts["cut"] += len(connections)
        return len(connections)

    def set_frozen(self, *, frozen: bool) -> None:
        """Pass nothing until told otherwise; connections stay open."""
        self.weather.frozen = frozen
        if frozen:
            self._thawed.clear()
        else:
            self._thawed.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather = self.weather
        if weather.refusing:
            self.counts["refused"] += 1
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # the broker is down: to the client that is a reset
            writer.transport.abort()
            return
        self.counts["connections"] += 1
        connection = _Connection(writer, far_writer)
        self._connections.add(connection)
        resetting = None
        if weather.reset_share and self._randomness.random() < weather.reset_share:
            after_s = self._randomness.uniform(0.0, weather.reset_within_s)
            resetting = asyncio.get_running_loop().call_later(after_s, self._reset, connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, connection))
                group.create_task(self._pump(far_reader, writer, connection))
        except* OSError:
            pass
        finally:
            if resetting is not None:
                resetting.cancel()
            self._connections.discard(connection)
            connection.reset()

    def _reset(self, connection: "_Connection") -> None:
        self.counts["reset"] += 1
        connection.reset()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: "_Connection"
    ) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY_MAX)

        async def deliver() -> None:
            while True:
                due_s, data = await under_way.get()
                if not data:
                    connection.reset()
                    return
                wait_s = due_s - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._thawed.wait()
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            data = b"."
            while data:
                with contextlib.suppress(ConnectionError):
                    data = b""
                    data = await reader.read(CHUNK_BYTES)
                late_s = 0.0
                if self.weather.one_way_s_max:
                    late_s = self._randomness.uniform(self.weather.one_way_s_min, self.weather.one_way_s_max)
                await under_way.put((loop.time() + late_s, data))


class _Connection:
    """The two sockets of one client."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._writers = (near, far)

    def reset(self) -> None:
        """End both sides without a farewell."""
        for writer in self._writers:
            writer.transport.abort()
