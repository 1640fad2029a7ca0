"""Where the agent's words go: the service manager's journal, a terminal or files that stay small.

Whatever the place, the last warnings and errors are also kept in memory for `fleet edge status`.
"""

import logging
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

RECENT_MAX: Final = 10
TEXT_CHARACTERS_MAX: Final = 300
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class LogSettings(BaseModel):
    """Table `[log]` of the file. Without `file` everything goes to standard error, which journald bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    file: Path | None = None
    bytes_max: int = Field(default=1_000_000, ge=10_000, le=100_000_000)
    files_max: int = Field(default=3, ge=2, le=20)

    @property
    def disk_bytes_max(self) -> int:
        """What the files can take together."""
        return self.bytes_max * self.files_max if self.file else 0


class _JournalFormatter(logging.Formatter):
    """A line with the priority journald understands; time and process are its own columns."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class RecentErrors(logging.Handler):
    """The last warnings and errors, each cut to a bounded length; repeats of the last one are counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._recent: deque[tuple[str, str, str]] = deque(maxlen=RECENT_MAX)
        self._repeats = 0
        self.total = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        text = record.getMessage()[:TEXT_CHARACTERS_MAX]
        self.total += 1
        if self._recent and self._recent[-1][1:] == (record.levelname, text):
            self._repeats += 1
        else:
            self._repeats = 0
        if self._repeats:
            self._recent.pop()
        at = logging.Formatter().formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        self._recent.append((at, record.levelname, text))

    def lines(self) -> list[dict[str, str]]:
        """Oldest first."""
        return [{"at": at, "level": level, "text": text} for at, level, text in self._recent]


def configure(settings: LogSettings, environment: Mapping[str, str] = os.environ) -> RecentErrors:
    """Set the process's logging up; raises OSError when the file cannot be written."""
    handler: logging.Handler
    if settings.file is not None:
        from logging.handlers import RotatingFileHandler  # noqa: PLC0415  # loads much that journald makes needless

        settings.file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            settings.file, maxBytes=settings.bytes_max, backupCount=settings.files_max - 1, encoding="utf-8"
        )
    else:
        handler = logging.StreamHandler()
    if settings.file is None and "JOURNAL_STREAM" in environment:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    recent = RecentErrors()
    root = logging.getLogger()
    root.setLevel(settings.level)
    root.handlers[:] = [handler, recent]
    return recent
