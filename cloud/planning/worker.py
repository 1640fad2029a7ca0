"""The process that solves: one problem per line on stdin, one plan per line on stdout; ends with its input.

It bounds itself, because who started it may be gone: memory by the kernel, the time of one question by an alarm signal,
whose default action ends a process even while native code holds the interpreter's lock.
"""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from cloud.planning.model import Plan, Problem
from cloud.planning.solve import solve

MEMORY_BYTES_MAX: Final = 2 * 2**30
"""Of address space. What needs more fails with its reason, and the plan before stays."""
GRACE_S: Final = 10.0
"""Above the solver's own limit: the start of the process, and what comes after the solver."""


class Question(msgspec.Struct):
    """What is asked: a problem, how long it may take, and whether to do without VROOM."""

    problem: Problem
    limit_s: float
    greedy: bool = False


class Limit(msgspec.Struct):
    """What is known of a question before it is read in whole."""

    limit_s: float


class Answer(msgspec.Struct):
    """The plan, or what went wrong."""

    plan: Plan | None = None
    error: str = ""


def answer(line: bytes, now_s: Callable[[], float]) -> bytes:
    """One line in, one line out; an error is an answer, too."""
    try:
        asked = msgspec.json.decode(line, type=Question)
        found = Answer(solve(asked.problem, now_s, limit_s=asked.limit_s, greedy=asked.greedy))
    except Exception as error:  # noqa: BLE001  # said to who asked, who takes the simple way instead
        found = Answer(None, f"{type(error).__name__}: {error}")
    return msgspec.json.encode(found) + b"\n"


def main(given: BinaryIO, taken: BinaryIO, now_s: Callable[[], float] = time.monotonic) -> None:
    """Until the input ends."""
    for line in given:
        signal.setitimer(signal.ITIMER_REAL, _limit_s(line) + GRACE_S)
        found = answer(line, now_s)
        signal.setitimer(signal.ITIMER_REAL, 0)
        taken.write(found)
        taken.flush()


def _limit_s(line: bytes) -> float:
    try:
        return msgspec.json.decode(line, type=Limit).limit_s
    except msgspec.DecodeError:
        return 0.0  # `answer` says what is wrong with it


def bound_itself() -> None:
    """No more memory than `MEMORY_BYTES_MAX`, ended by an alarm, and behind everything else for the processor."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it, whose end is the end of the input
    os.nice(5)


if __name__ == "__main__":
    bound_itself()
    # Whatever a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError):  # who asked was killed
        main(sys.stdin.buffer, answers)
