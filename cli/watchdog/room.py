"""The synthetic room: a device as any other to broker and cloud, with a button and no journal.

At most one press and its clearing are under way. What was not acknowledged is sent again; a fresh process is a room
with a fresh storage, so nothing needs to be remembered.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edge.link import Link, LinkError, Session
from fleet.envelope import (
    Acknowledgement,
    Envelope,
    EnvelopeError,
    Hello,
    Lane,
    Status,
    Welcome,
    boot_epoch,
    decode_downlink,
    encode,
)
from fleet.signing import BadSignatureError, Verifier, verify_acknowledgement, verify_welcome
from fleet.topics import DownChannel, UpChannel

KEEP_ALIVE_S: Final = 5
RECONNECT_S: Final = 1.0
HELLO_EVERY_S: Final = 2.0


@dataclass(slots=True)
class Press:
    """One round: the press and its clearing, as numbered messages of the emergency lane."""

    event_id: str
    began_s: float
    seq: int = 0
    """Its number, once the cloud has granted the room's storage."""
    published: bool = False
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    handed_back: asyncio.Event = field(default_factory=asyncio.Event)


class SyntheticRoom:
    """`run` keeps it connected; `press` and `clear` are the button."""

    def __init__(
        self, device_id: str, kind: str, link: Link, verifiers: Callable[[], Mapping[str, Verifier]], *,
        speed: float = 1.0,
    ) -> None:  # fmt: skip
        """`verifiers`: the cloud's command keys by id, asked anew at each hello; `speed` of business time."""
        self.trouble = "not connected yet"
        """Why there is no connection; empty while there is one."""
        self._device_id = device_id
        self._kind = kind
        self._link = link
        self._verifiers = verifiers
        self._speed = speed
        self._storage_id = secrets.token_hex(16)
        self._boot_id = secrets.token_hex(16)
        self._nonce = ""
        self._welcomed = asyncio.Event()
        self._generation = 0
        self._connections = 0
        self._clock = (0, 0.0)  # business ms at a monotonic second, from the latest welcome
        self._seq = 0
        self._unacknowledged: dict[int, bytes] = {}
        self._press: Press | None = None
        self._to_send = asyncio.Event()

    async def run(self) -> None:
        """Connect, say hello, listen; for ever."""
        while True:
            try:
                await self._connected()
            except* LinkError as errors:
                self.trouble = _first(errors)
            finally:
                self._welcomed.clear()
            await asyncio.sleep(RECONNECT_S)

    def press(self) -> Press:
        """Press the button, or send again what is still under way; it leaves as soon as there is a connection."""
        waiting = self._press
        if waiting is None or waiting.acknowledged.is_set():
            waiting = self._press = Press(secrets.token_hex(16), time.monotonic())
        waiting.began_s, waiting.published = time.monotonic(), False
        self._number_press()
        self._to_send.set()
        return waiting

    def clear(self, press: Press) -> None:
        """The clear key: so each round ends, whether it came back or not."""
        if press.seq and press.seq == self._seq:
            self._number("cleared_at_origin", secrets.token_hex(16), press.event_id)
            self._to_send.set()

    def delivered(self, event_id: str) -> bool:
        """A delivery came back; whether it was the one that is waited for."""
        if self._press is None or self._press.event_id != event_id:
            return False
        self._press.handed_back.set()
        return True

    # --- the device's side of the link ---------------------------------------------------------------------------

    async def _connected(self) -> None:
        self._connections += 1
        will = Status(self._device_id, boot_epoch(max(1, self._generation), 0), self._connections, online=False)
        async with self._link.connect(will, KEEP_ALIVE_S) as session:
            self.trouble = ""
            async with asyncio.TaskGroup() as group:
                group.create_task(self._greet(session))
                group.create_task(self._listen(session))
                group.create_task(self._send(session))

    async def _greet(self, session: Session) -> None:
        while not self._welcomed.is_set():
            self._nonce = secrets.token_hex(16)
            hello = Hello(
                version=1, kind=self._kind, device_id=self._device_id, storage_id=self._storage_id,
                generation=self._generation, boots=0, nonce=self._nonce, firmware="watchdog", boot_id=self._boot_id,
                command_keys=tuple(sorted(self._verifiers())),
            )  # fmt: skip
            await session.publish(UpChannel.HELLO, encode(hello))
            try:
                async with asyncio.timeout(HELLO_EVERY_S):
                    await self._welcomed.wait()
            except TimeoutError:
                continue

    async def _listen(self, session: Session) -> None:
        async for channel, payload in session.received():
            if channel is not DownChannel.ACK:
                continue
            try:
                message = decode_downlink(payload)
                if isinstance(message, Welcome):
                    self._on_welcome(message)
                else:
                    self._on_acknowledgement(message)
            except (EnvelopeError, BadSignatureError):
                continue  # whoever said this was not the cloud
        raise LinkError("the connection ended")

    def _on_welcome(self, welcome: Welcome) -> None:
        verify_welcome(welcome, self._device_id, self._verifiers())
        if welcome.nonce != self._nonce:
            return
        mark = welcome.marks.get(Lane.EMERGENCY, 0)
        if welcome.generation != self._generation:  # the cloud's first grant, or it lost what it knew of this storage
            self._generation, self._seq = welcome.generation, mark
            self._unacknowledged.clear()
            if self._press is not None and not self._press.acknowledged.is_set():
                self._press.seq = 0
        self._clock = (welcome.time_ms, time.monotonic())
        self._taken(mark)
        self._welcomed.set()

    def _on_acknowledgement(self, message: Acknowledgement) -> None:
        verify_acknowledgement(message, self._device_id, self._verifiers())
        if message.generation == self._generation:
            self._taken(message.marks.get(Lane.EMERGENCY, 0))
            for refused in message.refused:
                self._unacknowledged.pop(refused.seq, None)

    def _taken(self, mark: int) -> None:
        for seq in [seq for seq in self._unacknowledged if seq <= mark]:
            del self._unacknowledged[seq]
        if self._press is not None and 0 < self._press.seq <= mark:
            self._press.published = True
            self._press.acknowledged.set()

    def _number(self, type_: str, event_id: str, press_id: str) -> int:
        self._seq += 1
        at_ms, at_s = self._clock
        occurred_at = at_ms + round((time.monotonic() - at_s) * 1000 * self._speed)
        payload = json.dumps({"type": type_, "event_id": event_id, "press_id": press_id}).encode()
        envelope = Envelope(
            version=1, kind=self._kind, device_id=self._device_id, boot_epoch=boot_epoch(self._generation, 0),
            lane=Lane.EMERGENCY, seq=self._seq, occurred_at=occurred_at,
            payload=msgspec.Raw(payload),
        )  # fmt: skip
        self._unacknowledged[self._seq] = encode(envelope)
        return self._seq

    def _number_press(self) -> None:
        if self._press is not None and not self._press.seq and self._welcomed.is_set():
            self._press.seq = self._number("pressed", self._press.event_id, self._press.event_id)

    async def _send(self, session: Session) -> None:
        """In their order, all that is not acknowledged, whenever there is something new or it is asked for again."""
        await self._welcomed.wait()
        self._number_press()
        while True:
            self._to_send.clear()
            for seq, payload in sorted(self._unacknowledged.items()):
                await session.publish(UpChannel.EMERGENCY, payload)
                if self._press is not None and seq == self._press.seq:
                    self._press.published = True
            await self._to_send.wait()


def _first(errors: BaseExceptionGroup[BaseException]) -> str:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found) or type(found).__name__
