"""The wire between one device's hardware and its driver, in memory, with seeded faults."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleet.randomness import Randomness

_BITS_PER_BYTE: Final = 8


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often a byte is lost or has one bit flipped, per million bytes and direction."""

    dropped_per_million: float = 0.0
    corrupted_per_million: float = 0.0

    @property
    def total_per_million(self) -> float:
        """Any fault."""
        return self.dropped_per_million + self.corrupted_per_million


CLEAN: Final = FaultRates()


class LineFault:
    """Damages a byte stream at seeded places; the places do not depend on how the stream is cut into chunks."""

    def __init__(self, rates: FaultRates, randomness: Randomness) -> None:
        self.damaged_bytes = 0
        self._rates = rates
        self._randomness = randomness
        self._intact_bytes = self._gap()

    def _gap(self) -> int:
        per_byte = self._rates.total_per_million / 1_000_000
        if per_byte <= 0.0:
            return -1
        # The whole part of an exponential variate of this rate is geometric with the probability `per_byte`.
        return int(self._randomness.expovariate(-math.log1p(-per_byte))) if per_byte < 1.0 else 0

    def apply(self, data: bytes) -> tuple[bytes, bool]:
        """(what arrives, whether it differs from what was sent)."""
        if self._intact_bytes < 0:
            return data, False
        if self._intact_bytes >= len(data):
            self._intact_bytes -= len(data)
            return data, False
        arriving = bytearray()
        position = 0
        while self._intact_bytes < len(data) - position:
            fault_at = position + self._intact_bytes
            arriving += data[position:fault_at]
            if self._randomness.random() * self._rates.total_per_million >= self._rates.dropped_per_million:
                arriving.append(data[fault_at] ^ (1 << self._randomness.randint(0, _BITS_PER_BYTE - 1)))
            self.damaged_bytes += 1
            position = fault_at + 1
            self._intact_bytes = self._gap()
        self._intact_bytes -= len(data) - position
        return bytes(arriving + data[position:]), True


class MemoryLine:
    """One device's line. The driver's side attaches a callback and writes with `from_driver`."""

    def __init__(self, device_id: str, receive: Callable[[bytes], None]) -> None:
        self.device_id = device_id
        self.unheard_bytes = 0
        """Bytes the hardware wrote while nobody was attached."""
        self._receive = receive
        self._to_driver: Callable[[bytes], None] | None = None

    @property
    def attached(self) -> bool:
        """Whether somebody listens."""
        return self._to_driver is not None

    def attach(self, to_driver: Callable[[bytes], None]) -> None:
        """Let `to_driver` have every byte the hardware writes from now on; it may call `from_driver` at once.

        Raises:
            RuntimeError: somebody is attached already.
        """
        if self._to_driver is not None:
            raise RuntimeError(f"the line of {self.device_id} is taken")
        self._to_driver = to_driver

    def detach(self) -> None:
        """Stop listening; the hardware does not notice."""
        self._to_driver = None

    def from_driver(self, data: bytes) -> None:
        """Bytes for the hardware."""
        if data:
            self._receive(data)

    def deliver(self, data: bytes) -> None:
        """Bytes from the hardware, as they arrive at the other end."""
        if self._to_driver is None:
            self.unheard_bytes += len(data)
        elif data:
            self._to_driver(data)
