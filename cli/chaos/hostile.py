"""Message faults above TLS, between an agent and its link: what a broken or bad network stack would do to messages.

Up: a message is sent twice, sent after the next one, cut short instead of whole, or followed by a forgery that claims
to be another device. Down: an order or an acknowledgement comes twice, late, cut short or with one bit turned.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.link import Link, Session
from fleet.envelope import Status
from fleet.randomness import Randomness
from fleet.topics import DownChannel, UpChannel

_SOMEBODY_ELSE: Final = b"room-999"
_LANES: Final = frozenset({UpChannel.EMERGENCY, UpChannel.EVENT, UpChannel.TELEMETRY})


@dataclass(slots=True)
class Rates:
    """Shares of messages, 0 to 1; changed while agents run by rewriting the file they came from."""

    duplicated: float = 0.0
    reordered: float = 0.0
    truncated: float = 0.0
    forged: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Rates":
        """From a JSON file."""
        return cls(**json.loads(path.read_text()))

    def update(self, path: Path) -> None:
        """Take over what the file says now."""
        fresh = Rates.read(path)
        self.duplicated, self.reordered = fresh.duplicated, fresh.reordered
        self.truncated, self.forged = fresh.truncated, fresh.forged

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)


class HostileLink:
    """`edge.link.Link` around another one."""

    def __init__(self, link: Link, device_id: str, rates: Rates, randomness: Randomness) -> None:
        self.counts: Counter[str] = Counter()
        self._link = link
        self._device_id = device_id.encode()
        self._rates = rates
        self._randomness = randomness

    @asynccontextmanager
    async def connect(self, will: Status, keep_alive_s: int) -> AsyncIterator[Session]:
        """See Link."""
        async with self._link.connect(will, keep_alive_s) as session:
            yield _HostileSession(session, self._device_id, self._rates, self._randomness, self.counts)


class _HostileSession:
    def __init__(
        self, session: Session, device_id: bytes, rates: Rates, randomness: Randomness, counts: Counter[str]
    ) -> None:
        self._session = session
        self._device_id = device_id
        self._rates = rates
        self._randomness = randomness
        self._counts = counts
        self._held: tuple[UpChannel, bytes] | None = None

    def _drawn(self, rate: float, name: str) -> bool:
        if rate <= 0.0 or self._randomness.random() >= rate:
            return False
        self._counts[name] += 1
        return True

    async def publish(self, channel: UpChannel, payload: bytes) -> None:
        """A PUBACK is not delivery: what is held back or cut short counts as published, and must be sent again."""
        rates, held = self._rates, self._held
        if channel in _LANES:
            if held is None and self._drawn(rates.reordered, "reordered"):
                self._held = channel, payload
                return
            if self._drawn(rates.forged, "forged"):
                await self._session.publish(channel, payload.replace(self._device_id, _SOMEBODY_ELSE))
            if self._drawn(rates.truncated, "truncated"):
                await self._session.publish(channel, payload[: self._randomness.randint(0, len(payload) - 1)])
                return
        await self._session.publish(channel, payload)
        if self._drawn(rates.duplicated, "duplicated"):
            await self._session.publish(channel, payload)
        if held is not None:
            self._held = None
            await self._session.publish(*held)

    async def received(self) -> AsyncIterator[tuple[DownChannel, bytes]]:
        """See Session."""
        rates = self._rates
        held: tuple[DownChannel, bytes] | None = None
        async for channel, data in self._session.received():
            if held is None and self._drawn(rates.reordered, "reordered_down"):
                held = channel, data
                continue
            if self._drawn(rates.truncated, "truncated_down"):
                yield channel, data[: self._randomness.randint(0, len(data) - 1)]
                continue
            if self._drawn(rates.forged, "mutated_down"):
                place = self._randomness.randint(0, len(data) - 1)
                yield (
                    channel,
                    data[:place] + bytes([data[place] ^ 1 << self._randomness.randint(0, 7)]) + data[place + 1 :],
                )
            yield channel, data
            if self._drawn(rates.duplicated, "duplicated_down"):
                yield channel, data
            if held is not None:
                yield held
                held = None
