"""Time as an argument: the Protocol that every component is given instead of a clock of its own."""

from typing import Protocol

MILLISECONDS_PER_SECOND = 1000


class Clock(Protocol):
    """Business time, which a demo may run faster than the wall clock.

    Latencies and network time-outs are never measured with it: use `monotonic_s`.
    """

    @property
    def speed(self) -> float:
        """Business seconds that pass per real second; 1.0 in production."""
        ...

    def now_ms(self) -> int:
        """Business time as milliseconds since the Unix epoch, UTC. May jump when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Real seconds from an arbitrary origin; never jumps."""
        ...


class ManualClock:
    """A clock that stands still until it is advanced: for tests and for simulation on virtual time."""

    def __init__(self, now_ms: int = 1_800_000_000_000, speed: float = 1.0) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 0.0
        self._speed = speed

    @property
    def speed(self) -> float:
        return self._speed

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, *, seconds: float) -> None:
        """Let `seconds` of business time pass (and the matching real time)."""
        self._now_ms += round(seconds * MILLISECONDS_PER_SECOND)
        self._monotonic_s += seconds / self._speed

    def jump(self, *, seconds: float) -> None:
        """Set the wall clock wrong by `seconds` without any real time passing."""
        self._now_ms += round(seconds * MILLISECONDS_PER_SECOND)
