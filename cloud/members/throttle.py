"""Slows down guessing: so many failures per key in a window, then a pause. In memory, bounded, in real time."""

from collections import OrderedDict

from fleet.clock import Clock

KEYS_MAX = 20_000


class Throttle:
    """Counts failures per key. At `KEYS_MAX` keys the one that failed longest ago is forgotten and counted."""

    def __init__(self, clock: Clock, *, failures_max: int, window_s: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._window_s = window_s
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.forgotten = 0
        """Keys that were evicted at the bound."""

    def wait_s(self, key: str) -> float:
        """Real seconds until `key` may try again; 0 if it may now."""
        count, since_s = self._failures.get(key, (0, 0.0))
        remaining_s = since_s + self._window_s - self._clock.monotonic_s()
        return remaining_s if count >= self._failures_max and remaining_s > 0 else 0.0

    def failed(self, key: str) -> None:
        """Count a failure; the window starts at the first one."""
        now_s = self._clock.monotonic_s()
        count, since_s = self._failures.pop(key, (0, now_s))
        if now_s - since_s >= self._window_s:
            count, since_s = 0, now_s
        self._failures[key] = (count + 1, since_s)
        while len(self._failures) > KEYS_MAX:
            self._failures.popitem(last=False)
            self.forgotten += 1

    def taken_back(self, key: str) -> None:
        """The failure counted last was none; those before it stay."""
        count, since_s = self._failures.get(key, (0, 0.0))
        if count > 1:
            self._failures[key] = (count - 1, since_s)
        else:
            self._failures.pop(key, None)

    def succeeded(self, key: str) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)
