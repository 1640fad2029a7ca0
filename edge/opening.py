"""Opens the journal's database, whatever state it is in: damaged, missing, on a full or read-only disk."""

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.journal_store import JournalStore
from edge.records import Bounds, JournalCorruptError, JournalError, JournalUnavailableError
from edge.salvage import set_database_aside

_FOR_PEOPLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR})

_log = logging.getLogger(__name__)


class AbsentStore(JournalStore):
    """Stands in for a database that cannot be had now: it is empty, and refuses every write as a full disk does."""

    def __init__(self, bounds: Bounds, make_id: Callable[[], str], why: str) -> None:
        super().__init__(Path(":memory:"), bounds, make_id)
        self._why = why

    def begin(self) -> None:
        """Raises OperationalError."""
        error = sqlite3.OperationalError(self._why)
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


def open_store(path: Path, bounds: Bounds, make_id: Callable[[], str]) -> JournalStore:
    """The database at `path`, made if it is not there; an AbsentStore if the disk does not let us.

    Raises:
        JournalError: another process holds it, a newer release wrote it, or its folder is not ours.
    """
    try:
        return open_present_store(path, bounds, make_id)
    except JournalUnavailableError as error:
        _log.error("no journal: only emergencies are taken until the disk is well again: %s", error)
        return AbsentStore(bounds, make_id, str(error))


def open_present_store(path: Path, bounds: Bounds, make_id: Callable[[], str]) -> JournalStore:
    """Like `open_store`, but raises JournalUnavailableError instead of standing in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        if error.errno in _FOR_PEOPLE:
            raise JournalError(f"journal {path} cannot be opened: {error.strerror}; let it be writable") from error
        raise JournalUnavailableError(str(error)) from error
    try:
        return JournalStore(path, bounds, make_id)
    except JournalCorruptError as error:
        return _begin_after(path, bounds, make_id, error)


def _begin_after(path: Path, bounds: Bounds, make_id: Callable[[], str], error: JournalCorruptError) -> JournalStore:
    try:
        aside = set_database_aside(path)
    except OSError as refusal:  # read-only: it can neither be used nor moved
        raise JournalUnavailableError(f"{error}; {refusal}") from refusal
    _log.error("journal damaged, set aside as %s: %s", aside.path.name, error)
    store = JournalStore(path, bounds, make_id)
    try:
        store.begin()
        carried = aside.carry_into(store)
        store.commit()
    except sqlite3.Error as refusal:
        store.rollback()
        store.close()
        aside.put_back(path)  # nothing is given up because the disk is full just now
        raise JournalUnavailableError(str(refusal)) from refusal
    _log.warning("carried %d messages over from the damaged journal", carried)
    return store
