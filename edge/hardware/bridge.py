"""What every bridge shares: a `Line` whose other end is Python instead of a controller.

A bridge speaks the frames of its kind to the driver, exactly as a controller does, and whatever its hardware speaks
to the hardware. So drivers, journal and tests know nothing of it. Its tasks live from `open` to `close`; if one of
them dies, `read` raises what killed it: OSError makes the agent open the line again, anything else ends the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from edge.transports import LINE_BUFFER_BYTES_MAX
from fleet.framing import FrameReader

EVENT_REPEAT_S: Final = 1.0
EVENTS_KEPT_MAX: Final = 64
"""Events that wait for the agent; more are refused by `tell`, and the caller must not go on as if they were told."""


class BridgeFullError(OSError):
    """The agent has acknowledged nothing for so long that no further event can be kept."""


class Bridge:
    """Base of a bridge: subclasses give `works` and `on_frame`, and call `say` and `tell`."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._waiting: dict[bytes, bytes] = {}
        self._out = bytearray()
        self._filled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._dead: BaseException | None = None
        self._open = False

    # --- for subclasses ------------------------------------------------------------------------------------------

    def works(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs while the line is open."""
        raise NotImplementedError

    async def on_frame(self, frame_type: int, body: bytes) -> None:
        """The driver wrote a frame; ValueError for one that cannot be read."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Make the hardware ready; raises OSError."""

    def disconnect(self) -> None:
        """Release the hardware; also after a failed `connect`."""

    def say(self, frame: bytes) -> None:
        """Write to the driver once; what finds the buffer full is lost, as on a wire."""
        if len(self._out) + len(frame) <= LINE_BUFFER_BYTES_MAX:
            self._out += frame
            self._filled.set()

    def tell(self, event_id: bytes, frame: bytes) -> None:
        """Write an event to the driver, again and again until `acknowledged`; it survives a reopening of the line.

        Raises:
            BridgeFullError: too many wait already.
        """
        if event_id not in self._waiting and len(self._waiting) >= EVENTS_KEPT_MAX:
            raise BridgeFullError(f"{EVENTS_KEPT_MAX} events wait for the agent")
        self._waiting[event_id] = frame
        self.say(frame)

    def acknowledged(self, event_id: bytes) -> None:
        """The agent has the event in its journal."""
        self._waiting.pop(event_id, None)

    # --- the Line -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """See Line."""
        self.close()
        try:
            await self.connect()
        except BaseException:
            self.disconnect()
            raise
        self._open, self._dead = True, None
        loop = asyncio.get_running_loop()
        for work in (self._repeat_events, *self.works()):
            task = loop.create_task(self._run(work))  # watched: its death is what `read` raises next
            self._tasks.append(task)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # handed to whoever reads the line
            self._dead = self._dead or error
            self._filled.set()

    async def _repeat_events(self) -> None:
        while True:
            await asyncio.sleep(EVENT_REPEAT_S)
            for frame in self._waiting.values():
                self.say(frame)

    async def read(self) -> bytes:
        """See Line."""
        while not self._out:
            if self._dead is not None:
                raise self._dead
            if not self._open:
                return b""
            self._filled.clear()
            await self._filled.wait()
        data = bytes(self._out)
        self._out.clear()
        return data

    def write(self, data: bytes) -> None:
        """See Line."""
        for frame_type, body in self._reader.feed(data):
            if self._open:
                self._tasks = [task for task in self._tasks if not task.done()]
                answer = self._answer(self.on_frame(frame_type, body))
                self._tasks.append(asyncio.get_running_loop().create_task(self._run(answer)))

    @staticmethod
    def _answer(work: Awaitable[None]) -> Callable[[], Coroutine[Any, Any, None]]:
        async def answer() -> None:
            try:
                await work
            except ValueError:  # a frame of another release; the driver repeats what matters
                return

        return answer

    def close(self) -> None:
        """See Line."""
        if self._open:
            self._open = False
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
            self._out.clear()
            self._filled.set()
            self.disconnect()
