"""What the watchdog and `fleet edge status` look at: progress of the line task and what the line said last."""

from collections.abc import Callable
from dataclasses import dataclass, field

ERROR_CHARACTERS_MAX = 200


@dataclass(slots=True)
class LineVitals:
    """Written by the line task, read by others on the same event loop. Times are monotonic seconds."""

    monotonic_s: Callable[[], float]
    is_open: bool = False
    opened_s: float | None = None
    heard_s: float | None = None
    error: str = ""
    _busy_since_s: float | None = field(default=None, init=False)

    def working(self) -> "_Working":
        """Around everything that is not waiting for the hardware: it must end."""
        return _Working(self)

    def busy(self, since_s: float | None) -> None:
        """A piece of work began then; None: it is done."""
        self._busy_since_s = since_s

    @property
    def busy_s(self) -> float:
        """How long the present piece of work has taken; 0 while the line waits for its hardware."""
        return 0.0 if self._busy_since_s is None else self.monotonic_s() - self._busy_since_s

    def opened(self) -> None:
        """The line is ready."""
        self.is_open, self.opened_s, self.error = True, self.monotonic_s(), ""

    def heard(self) -> None:
        """Bytes arrived."""
        self.heard_s = self.monotonic_s()

    def failed(self, error: str) -> None:
        """The line broke or could not be opened."""
        self.is_open, self.error = False, error[:ERROR_CHARACTERS_MAX]

    def ended(self) -> None:
        """The other end is gone; without an error of its own."""
        if self.is_open:
            self.is_open, self.error = False, "the line ended"


class _Working:
    """A class, because a generator for every chunk of bytes costs three times as much."""

    __slots__ = ("_vitals",)

    def __init__(self, vitals: LineVitals) -> None:
        self._vitals = vitals

    def __enter__(self) -> None:
        self._vitals.busy(self._vitals.monotonic_s())

    def __exit__(self, *_: object) -> None:
        self._vitals.busy(None)
