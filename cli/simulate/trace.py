"""The ordered log of everything that happened, as one digest."""

import hashlib
import zlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

_TAIL_MAX: Final = 40_000


class Trace:
    """`note` adds one line; `digest` is SHA-256 over all of them. The latest lines are kept for people."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        self._time_s = time_s
        self._hash = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=_TAIL_MAX)
        self.counts: Counter[str] = Counter()
        self.lines = 0

    def note(self, what: str, *details: object) -> None:
        """`what` names the kind of happening; details are numbers and texts, never objects with addresses."""
        line = f"{self._time_s():.9f} {what} {' '.join(map(str, details))}\n"
        self._hash.update(line.encode())
        self.tail.append(line)
        self.counts[what] += 1
        self.lines += 1

    def message(self, what: str, name: str, payload: bytes) -> None:
        """A message, by its checksum."""
        self.note(what, name, len(payload), zlib.crc32(payload))

    @property
    def digest(self) -> str:
        """Of everything until now."""
        return self._hash.hexdigest()
