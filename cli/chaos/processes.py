"""Victims and the supervisor that starts each of them again the moment it is dead."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cli.chaos.control import Control
from cli.processes import guard

WATCH_EVERY_S: Final = 0.02
STOP_S_MAX: Final = 20.0
LOG_BYTES_MAX: Final = 4_000_000
DEATHS_BY_ITSELF_MAX: Final = 20
"""A victim that ends that often without having been killed is broken; the run then stops."""


class ChaosError(RuntimeError):
    """The run can't go on or proves nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Death:
    """One end of a victim; real seconds, monotonic. `by_itself`: nobody killed it."""

    victim: str
    at_s: float
    by_itself: bool


class Victim:
    """One process of ours with its control page and its log."""

    def __init__(
        self, name: str, directory: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.control = Control(directory / f"{name}.control")
        self.log_file = directory / f"{name}.log"
        self.starts = 0
        self.started_s = 0.0
        self._arguments = [sys.executable, "-m", "cli.chaos.victim", str(directory / f"{name}.control"), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the current life."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it (again)."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".old.log"))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdout=log, stderr=log, env=self._environment, process_group=0
            )
        guard.watch(self._process, self.log_file.parent)
        self.starts += 1
        self.started_s = time.monotonic()

    def kill(self) -> None:
        """SIGKILL; the supervisor notices."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """SIGTERM, wait, then SIGKILL."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self, lines: int = 12) -> str:
        """End of its log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])


class Bystander(Protocol):
    """A process that must not die: hardware, receiver."""

    name: str

    @property
    def running(self) -> bool: ...

    def stop(self) -> None: ...

    def last_words(self, lines: int = 8) -> str: ...


class Supervisor:
    """Watches victims; `deaths` is the whole story."""

    def __init__(self) -> None:
        self.victims: dict[str, Victim] = {}
        self.bystanders: list[Bystander] = []
        self.deaths: list[Death] = []

    def add(self, victim: Victim) -> None:
        """Take it into care; it is started here."""
        self.victims[victim.name] = victim
        victim.start()

    async def run(self) -> None:
        """Start again whoever died, at once, until cancelled. Raises ChaosError."""
        while True:
            for victim in self.victims.values():
                code = victim.exit_code
                if code is not None:
                    self._note(victim, code)
                    victim.start()
            for bystander in self.bystanders:
                if not bystander.running:
                    raise ChaosError(f"the {bystander.name} process died:\n{bystander.last_words(20)}")
            await asyncio.sleep(WATCH_EVERY_S)

    def _note(self, victim: Victim, code: int) -> None:
        death = Death(victim.name, time.monotonic(), by_itself=code != -signal.SIGKILL)
        self.deaths.append(death)
        if sum(one.by_itself for one in self.deaths) > DEATHS_BY_ITSELF_MAX:
            raise ChaosError(f"{victim.name} keeps ending by itself ({code}):\n{victim.last_words(30)}")

    def stop(self) -> None:
        """End all victims."""
        for victim in self.victims.values():
            victim.stop()
