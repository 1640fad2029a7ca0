"""Where the ingester's CPU goes, by py-spy from outside: a flame graph, and µs per message for each of our files.

The profiler stops the process some hundred times a second, so this is a phase of its own: figures are taken without it.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from cli.bench.rig import BenchError

SAMPLES_PER_SECOND: Final = 250
GENERATED: Final = ("<alarm table>", "<quiet>")
MAKER: Final = "cloud/rules/conditions.py"
"""Makes these functions from the kinds' tables of alarms."""
OURS: Final = ("cloud/", "fleet/", "devices/", *GENERATED)
OTHERS: Final = "Python and its libraries"
_FRAME: Final = re.compile(r"^(?P<function>.*?) \((?P<file>[^()]*?)(?::\d+)?\)$")
_THREAD: Final = re.compile(r"^thread \([0-9A-Fa-fx]+\): ?")
_WAITING: Final = {
    ("_worker", "concurrent/futures/thread.py"), ("Condition.wait", "threading.py"), ("Event.wait", "threading.py"),
    ("Queue.get", "queue.py"), ("ThreadedChildWatcher._do_waitpid", "asyncio/unix_events.py"),
}  # fmt: skip
"""Innermost frames of threads that have nothing to do; py-spy takes some of them for busy ones."""
HINT: Final = "py-spy is missing: pip install 'gaoxin-fleet[profile]' (or pip install py-spy)"
PERMISSION_HINT: Final = (
    "py-spy may not look into the process: run as root, allow it with `sysctl kernel.yama.ptrace_scope=0`, "
    "or in a container with `--cap-add SYS_PTRACE`"
)

_WIDTH: Final = 1200.0
_NARROWEST: Final = 1.0
_ROW: Final = 17
_LETTER: Final = 6.6
_HUES: Final = {
    "cloud/adapters": 205, "cloud/ingest": 25, "cloud/twin": 140, "cloud/rules": 285, "cloud/timeseries": 50,
    "fleet": 95, "devices": 165, "cloud": 0,
}  # fmt: skip


class Frame(NamedTuple):
    """One function on a stack; `file` relative to where Python found it."""

    function: str
    file: str

    @property
    def ours(self) -> bool:
        """Whether it is the product's own code."""
        return self.file.startswith(OURS)


@dataclass(frozen=True, slots=True)
class Stack:
    """What one thread was doing, outermost frame first, and in how many samples."""

    thread: str
    frames: tuple[Frame, ...]
    count: int


def py_spy() -> str:
    """The program, beside this Python or on PATH. Raises BenchError."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if found is None:
        raise BenchError(HINT)
    return found


@dataclass(slots=True)
class Recording:
    """One py-spy that watches a process for a while."""

    process: "subprocess.Popen[str]"
    output: Path

    def finish(self, limit_s: float) -> list[Stack]:
        """Wait for its end; returns what it saw of threads that had something to do. Raises BenchError."""
        try:
            said = self.process.communicate(timeout=limit_s)[1]
        except subprocess.TimeoutExpired:
            self.stop()
            raise BenchError("py-spy did not end in time") from None
        stacks = list(parse(self.output.read_text())) if self.output.is_file() else []
        if self.process.returncode or not stacks:
            if "ermission" in said or "ptrace" in said:
                raise BenchError(PERMISSION_HINT)
            raise BenchError(f"py-spy saw nothing: {said.strip()[-300:] or 'and said nothing'}")
        return stacks

    def stop(self) -> None:
        """End it early."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def record(pid: int, output: Path, seconds: int) -> Recording:
    """Watch `pid` for so long."""
    command = [py_spy(), "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(SAMPLES_PER_SECOND)]
    command += ["--format", "raw", "--function", "--threads", "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return Recording(process, output)


def parse(folded: str) -> Iterator[Stack]:
    """`thread (0x1): name;frame;…;frame count` a line; waiting threads are left out."""
    for line in folded.splitlines():
        text, _, count = line.rpartition(" ")
        thread, *rest = text.split(";")
        frames = tuple(_frame(name) for name in rest)
        if frames and count.isdigit() and tuple(frames[-1]) not in _WAITING:
            yield Stack(re.sub(r"_\d+$", "", _THREAD.sub("", thread)), frames, int(count))


def _frame(text: str) -> Frame:
    found = _FRAME.match(text)
    return Frame(found["function"], found["file"]) if found else Frame(text, "")


def shares(stacks: Sequence[Stack]) -> dict[str, float]:
    """File of ours that was at work, or had called what was → share of all samples, largest first."""
    counted: Counter[str] = Counter()
    for stack in stacks:
        file = next((frame.file for frame in reversed(stack.frames) if frame.ours), OTHERS)
        counted[MAKER if file in GENERATED else file] += stack.count
    total = counted.total()
    return {name: count / total for name, count in counted.most_common()} if total else {}


# --- the picture -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    count: int = 0
    below: dict[Frame, "_Node"] = field(default_factory=dict)


def draw(stacks: Sequence[Stack], title: str) -> str:
    """An SVG: a box is a function, as wide as the share of samples in which it was on the stack; callers below."""
    root = _Node()
    for stack in stacks:
        node = root
        node.count += stack.count
        for frame in (Frame(stack.thread, ""), *_shown(stack.frames)):
            node = node.below.setdefault(frame, _Node())
            node.count += stack.count
    rows = _depth(root, root.count / _WIDTH * _NARROWEST)
    height = (rows + 3) * _ROW
    boxes = "\n".join(_boxes(root, root.count, 0.0, height - 2 * _ROW))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="#fff"/>
<text x="6" y="{_ROW - 4}" font-size="13">{escape(title)}</text>
{boxes}
</svg>
"""


def _shown(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Without what is the same below everything: interpreter, command line, event loop."""
    first = next((number for number, frame in enumerate(frames) if frame.ours and frame.function != "endless"), None)
    return frames[-1:] if first is None else frames[first:]


def _depth(node: _Node, count_min: float) -> int:
    return 1 + max((_depth(child, count_min) for child in node.below.values() if child.count >= count_min), default=0)


def _boxes(node: _Node, total: int, left: float, top: float) -> Iterator[str]:
    for frame, child in sorted(node.below.items()):
        width = child.count / total * _WIDTH
        if width >= _NARROWEST:
            name = f"{frame.function} ({frame.file})" if frame.file else frame.function
            words = f"<title>{escape(name)}: {child.count / total:.1%}</title>"
            letters = int((width - 4) / _LETTER)
            label = frame.function if len(frame.function) <= letters else f"{frame.function[: letters - 1]}…"
            text = f'<text x="{left + 2:.1f}" y="{top + _ROW - 5:.0f}">{escape(label)}</text>' if letters >= 4 else ""
            yield (
                f'<g>{words}<rect x="{left:.1f}" y="{top:.0f}" width="{max(0.3, width - 0.4):.1f}" '
                f'height="{_ROW - 1}" fill="{_colour(frame)}"/>{text}</g>'
            )
            yield from _boxes(child, total, left, top - _ROW)
        left += width


def _colour(frame: Frame) -> str:
    if frame.file in GENERATED:
        return f"hsl({_HUES['cloud/rules']} 70% 76%)"
    hue = next((hue for place, hue in _HUES.items() if frame.file.startswith(f"{place}/")), None)
    return "hsl(0 0% 84%)" if hue is None else f"hsl({hue} 70% 76%)"
