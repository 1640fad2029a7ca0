"""What truly happened, as JSON Lines: written before the bytes are delivered that tell the edge about it.

One line: `at_ms` (business time), `real_s` (monotonic real seconds, for latencies), `device_id`, `kind`,
`what`, `event_id` (null unless the hardware reports it as an event), `facts`, and `line`:

| `line` | meaning |
|---|---|
| `intact` | the bytes written together with this truth went to the driver as they were |
| `damaged` | some of them were dropped or altered on the wire; hardware repeats events, never readings |
| `unattached` | nobody was listening |
| `silent` | the hardware wrote nothing at that moment |
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from fleet.kind import Truth

LineState = Literal["intact", "damaged", "unattached", "silent"]


class TruthLine(msgspec.Struct, frozen=True):
    """One line of the log."""

    at_ms: int
    real_s: float
    device_id: str
    kind: str
    what: str
    event_id: str | None
    facts: dict[str, Any]
    line: LineState

    @classmethod
    def of(cls, truth: Truth, real_s: float, kind: str, line: LineState) -> Self:
        """A simulator's truth, with what the world knows about it."""
        return cls(truth.at_ms, real_s, truth.device_id, kind, truth.what, truth.event_id, dict(truth.facts), line)


class TruthSink(Protocol):
    """Takes whole lines; when `write` returns they must survive the death of this process."""

    def write(self, lines: bytes) -> None: ...


class TruthListener(Protocol):
    """Hears lines as they are, for whoever keeps no log of them: then nothing is encoded."""

    def hear(self, lines: Sequence[TruthLine]) -> None: ...


class TruthMemory:
    """Keeps the log in memory: for virtual time and tests."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, lines: bytes) -> None:
        self.content += lines

    def lines(self) -> list[TruthLine]:
        """The log, decoded."""
        return decode_lines(bytes(self.content))


class TruthUnwritten:
    """Keeps nothing and costs nothing: for worlds of many days, whose truth is asked for by `World.snapshot`."""

    def write(self, lines: bytes) -> None:
        """Whoever calls it did not ask whether the log is wanted (see `World`)."""


class TruthFile:
    """Appends to a file without a buffer of its own: what was written is in the kernel's hands."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Close the file; no line may follow."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TruthLine)


def encode_line(line: TruthLine) -> bytes:
    """JSON and a line feed."""
    return _encoder.encode(line) + b"\n"


def decode_lines(content: bytes) -> list[TruthLine]:
    """Every complete line; a last line without its line feed (a killed writer) is left out."""
    return [_decoder.decode(line) for line in content.split(b"\n")[:-1]]
