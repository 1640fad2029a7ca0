"""Keeps the ingest bench's load just ahead of who receives it, and watches memory meanwhile.

A broker drops what a slow receiver does not fetch, so a load that simply sent as fast as it can would measure losses.
The load may be `AHEAD_MAX` messages beyond what is durable: far more than one batch, so that nobody waits for it, and
far less than the broker's queue. How far the spool is, its files tell; that costs the ingester nothing.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cli.bench.ingest_load import Fleet, Phase, arguments
from cli.bench.rig import BenchError, Rig
from cli.processes import guard
from cloud.timeseries.segments import segment_path, segment_positions

AHEAD_MAX: Final = 20_000
TELEMETRY: Final = 'fleet_messages_total{lane="telemetry"}'
POLL_S: Final = 0.01
FIRST_COUNT_S: Final = 1.0
COUNT_S: Final = 10.0
"""Between two looks at the exact count, which costs the cloud about 10 ms; the spool's size tells the rest."""
QUIET_S: Final = 0.1
ASK_S: Final = 0.25
MEMORY_S: Final = 0.5
SLOPE_SAMPLES_MIN: Final = 10
SLOPE_MESSAGES_MIN: Final = 100_000
STALL_S_MAX: Final = 30.0
REFUSALS: Final = (
    "fleet_holes_total", "fleet_duplicates_total", "fleet_quarantined_total", "fleet_spool_refused_total",
)  # fmt: skip


class IngestLoad:
    """The publisher process; one phase after another."""

    def __init__(self, fleet: Fleet, port: int, identity: Sequence[str] = ()) -> None:
        self.fleet = fleet
        self._process = subprocess.Popen(
            arguments(fleet, port, identity), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        guard.watch(self._process)  # type: ignore[arg-type]  # text or bytes makes no difference to it
        self._line()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def go(self, phase: Phase) -> None:
        """Begin to send."""
        self._say({"go": asdict(phase)})

    def credit(self, messages: int) -> None:
        """So many messages of this phase have arrived."""
        self._say({"credit": messages})

    def result(self) -> dict[str, float]:
        """Wait for the end of a phase: messages and seconds."""
        found: dict[str, float] = json.loads(self._line())
        return found

    def stop(self) -> None:
        """End it, also in the middle of a phase."""
        self._process.kill()
        self._process.wait()

    def _say(self, command: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError("the load ended early; its words stand above") from None

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the load ended early; its words stand above")
        return line


def spool_position(directory: Path) -> int:
    """Bytes ever appended to a spool, from outside; 0 before it exists."""
    starts = segment_positions(directory)
    if not starts:
        return 0
    try:
        return starts[-1] + segment_path(directory, starts[-1]).stat().st_size
    except FileNotFoundError:
        return starts[-1]


class SpoolProgress:
    """How many telemetry messages the cloud has taken: exact now and then, from the spool's size in between."""

    def __init__(self, rig: Rig, spool: Path) -> None:
        self._rig = rig
        self._directory = spool
        self._known = 0.0
        self._known_position = 0
        self._message_bytes = 0.0
        self._counted_s = 0.0
        self._lock = threading.Lock()

    def position(self) -> int:
        """Bytes in the spool so far, those it has let go of counted in."""
        return spool_position(self._directory)

    def messages(self) -> float:
        """So many by now, give or take a batch or two. Raises OSError if the cloud does not answer."""
        with self._lock:
            return self._messages()

    def _messages(self) -> float:
        now_s = time.monotonic()
        position = self.position()
        if now_s - self._counted_s >= (COUNT_S if self._message_bytes else FIRST_COUNT_S):
            found = self._rig.metric(TELEMETRY)
            if found > self._known and position > self._known_position:
                self._message_bytes = (position - self._known_position) / (found - self._known)
            self._known, self._known_position, self._counted_s = found, position, now_s
        if not self._message_bytes:
            return self._known
        return self._known + (position - self._known_position) / self._message_bytes


@dataclass(slots=True)
class Memory:
    """Resident memory over a run: (messages, MB) as they were seen."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def slope_mb_per_million(self) -> float | None:
        """Least squares over the second half of the run; None for too short a run to say."""
        points = self.samples[len(self.samples) // 2 :]
        if len(points) < SLOPE_SAMPLES_MIN or points[-1][0] - points[0][0] < SLOPE_MESSAGES_MIN:
            return None
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread * 1e6


def resident_now_mb(pid: int) -> float:
    """Resident memory of a process at this moment, MB; 0.0 where /proc does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Flow:
    """`with Flow(load, phase, progress, pid):` credit and memory in a thread, while others wait."""

    def __init__(self, load: IngestLoad, phase: Phase, progress: Callable[[], float], pid: int) -> None:
        self.memory = Memory()
        self._load = load
        self._paced = phase.ahead > 0  # a load that asks for no credit reads none, and the pipe would fill up
        self._progress = progress
        self._pid = pid
        self._stop = threading.Event()
        self._began = progress()
        self._thread = threading.Thread(target=self._run, name="flow", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        seen_s = 0.0
        while not self._stop.wait(POLL_S if self._paced else MEMORY_S):
            try:
                done = self._progress() - self._began
            except OSError:  # it did not answer in time: it is busy with what it has
                continue
            if self._paced:
                try:
                    self._load.credit(max(0, int(done)))
                except BenchError:
                    return  # whoever waits for the messages sees that nothing comes, and says why
            if time.monotonic() - seen_s >= MEMORY_S:
                seen_s = time.monotonic()
                self.memory.samples.append((done, resident_now_mb(self._pid)))


def wait_for(rig: Rig, progress: SpoolProgress, total: int, limit_s: float) -> float:
    """Until `total` messages are committed; returns the monotonic moment at which the last of them became durable.

    The exact count costs the cloud about 10 ms, so it is asked for only when the spool has stopped growing.

    Raises:
        BenchError: too late, or nothing came for `STALL_S_MAX`; names what the cloud counted instead.
    """
    position, grown_s, asked_s = -1, time.monotonic(), 0.0

    def arrived() -> bool:
        nonlocal position, grown_s, asked_s
        now_s, found = time.monotonic(), progress.position()
        if found != position:
            position, grown_s = found, now_s
        if now_s - grown_s < QUIET_S or now_s - asked_s < ASK_S:
            return False
        asked_s = now_s
        have = rig.metric(TELEMETRY)
        if have < total and now_s - grown_s > STALL_S_MAX:
            counted = ", ".join(f"{name} {rig.metric(name):.0f}" for name in REFUSALS)
            raise BenchError(
                f"{have:.0f} of {total} messages are committed, and for {STALL_S_MAX:.0f} s no more came: the broker "
                f"or the ingester let some go ({counted})"
            )
        if progress.position() != position:  # it grew while we asked; the count may know of that already
            position, grown_s = progress.position(), time.monotonic()
        return have >= total

    rig.wait(arrived, limit_s, f"{total} messages to be committed", every_s=0.01)
    return grown_s
