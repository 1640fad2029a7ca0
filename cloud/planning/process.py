"""Solves in a process of its own: pyvroom keeps the interpreter's lock, and a call for help waits for nobody's round.

The process is started with the first plan and kept; one that does not answer in time is ended, and the simple
insertion plans instead (also in a process of its own).
"""

import asyncio
import contextlib
import sys
from typing import Final

import msgspec
import structlog

from cloud.planning.model import Plan, Problem
from cloud.planning.solve import LIMIT_S
from cloud.planning.worker import GRACE_S, Answer, Question

_log = structlog.get_logger(__name__)

LINE_BYTES_MAX: Final = 32_000_000


class PlanningError(Exception):
    """No plan was made; the one before stays."""


class SolverProcess:
    """One solver, one question at a time."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "cloud.planning.worker")) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def solve(self, problem: Problem, *, limit_s: float = LIMIT_S, grace_s: float = GRACE_S) -> Plan:
        """The plan. Raises PlanningError when neither way gave one in time."""
        async with self._one_at_a_time:
            try:
                return await self._ask(Question(problem, limit_s), limit_s + grace_s)
            except PlanningError as error:
                _log.warning("planning without VROOM", error=str(error))
                return await self._ask(Question(problem, limit_s, greedy=True), limit_s + grace_s)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, question: Question, within_s: float) -> Plan:
        try:
            async with asyncio.timeout(within_s):
                line = await self._exchange(msgspec.json.encode(question) + b"\n")
        except (TimeoutError, OSError, ValueError) as error:
            await self.close()
            raise PlanningError(f"the solver gave no answer: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await self.close()
            raise
        if not line:
            await self.close()
            raise PlanningError("the solver ended without an answer")
        try:
            found = msgspec.json.decode(line, type=Answer)
        except msgspec.DecodeError as error:  # it died in the middle of its answer
            await self.close()
            raise PlanningError(f"the solver's answer can't be read: {error}") from error
        if found.plan is None:
            raise PlanningError(found.error)
        return found.plan

    async def _exchange(self, line: bytes) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX
            )
        assert process.stdin is not None, "it was asked for"
        assert process.stdout is not None, "it was asked for"
        process.stdin.write(line)
        await process.stdin.drain()
        return await process.stdout.readline()
