"""The part of the journal's database that remembers commands: which ids were seen, and how they ended.

An id is forgotten only at the bound, and only when its command is past its time by the cloud's clock. What is
forgotten leaves a floor behind: an unknown command that ended at or before the floor may be one of those, so it is
never carried out, even if the cloud's clock should go back. Ids from a time when the cloud's clock was years ahead
would fill the table for those years; they may be forgotten, too, and leave a ceiling behind in the same way.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from edge.records import Admission, Bounds, CommandRecord
from fleet.messages import FINAL_REPLIES, Reason, ReplyStatus

COMMAND_SCHEMA: Final = """
CREATE TABLE command (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, command_id TEXT NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, at INTEGER NOT NULL, reply_acknowledged INTEGER NOT NULL, not_after INTEGER NOT NULL,
    UNIQUE (device_id, command_id)
) STRICT;
CREATE INDEX command_age ON command (device_id, not_after);
CREATE TABLE command_memory (
    device_id TEXT PRIMARY KEY, command_count INTEGER NOT NULL, floor INTEGER NOT NULL, ceiling INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
_FORGET_SHARE: Final = 32  # forget this part of the bound at once, so that a full table does not search every time
_ABSURD_MS: Final = 3_600_000  # no command lives so long: further ahead than this the clock was wrong
_NO_CEILING: Final = 2**62
_FINAL: Final = tuple(sorted(status.value for status in FINAL_REPLIES))
_COLUMNS: Final = "command_id, status, reason, at, reply_acknowledged, not_after"


class CommandTable:
    """Operations inside the transaction of whoever holds the connection."""

    bounds: Bounds
    _connection: sqlite3.Connection

    def remember_command(self, device_id: str, record: CommandRecord, now_ms: int | None) -> Admission:
        """Keep a command id before anything moves.

        `now_ms` is the cloud's time, by which room is made at the bound; None without any: nothing is forgotten then.
        """
        if self.command(device_id, record.command_id) is not None:
            return Admission.SEEN
        count, floor, ceiling = self._memory(device_id)
        if count >= self.bounds.commands_max:
            forgotten, floor, ceiling = self._forget(device_id, floor, ceiling, now_ms)
            if not forgotten:
                return Admission.FULL
            count -= forgotten
        self._connection.execute(
            "INSERT INTO command (device_id, command_id, status, reason, at, reply_acknowledged, not_after) "
            "VALUES (?, ?, ?, ?, ?, 0, ?)",
            (device_id, record.command_id, record.status.value, record.reason, record.at, record.not_after),
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO command_memory (device_id, command_count, floor, ceiling) VALUES (?, ?, ?, ?)",
            (device_id, count + 1, floor, ceiling),
        )
        return Admission.NEW

    def _memory(self, device_id: str) -> tuple[int, int, int]:
        """(ids kept, floor, ceiling)."""
        row = self._connection.execute(
            "SELECT command_count, floor, ceiling FROM command_memory WHERE device_id = ?", (device_id,)
        ).fetchone()
        return (0, -1, _NO_CEILING) if row is None else row

    def _forget(self, device_id: str, floor: int, ceiling: int, now_ms: int | None) -> tuple[int, int, int]:
        """(how many ids were forgotten, floor and ceiling after it); those that ended first go first."""
        if now_ms is None:
            return 0, floor, ceiling
        over = self._drop(device_id, "not_after < ? ORDER BY not_after, id", now_ms)
        if over:
            return len(over), max(floor, *over), ceiling
        absurd = self._drop(device_id, "not_after > ? ORDER BY not_after DESC, id", now_ms + _ABSURD_MS)
        return len(absurd), floor, min([ceiling, *absurd])

    def _drop(self, device_id: str, which: str, bound_ms: int) -> list[int]:
        """Delete some ids of commands that ended; their `not_after`."""
        rows = self._connection.execute(
            f"SELECT id, not_after FROM command WHERE device_id = ? AND status IN ({', '.join('?' * len(_FINAL))}) "  # noqa: S608  # our own words
            f"AND {which} LIMIT ?",
            (device_id, *_FINAL, bound_ms, max(1, self.bounds.commands_max // _FORGET_SHARE)),
        ).fetchall()
        self._connection.executemany("DELETE FROM command WHERE id = ?", [(identity,) for identity, _ in rows])
        return [not_after for _, not_after in rows]

    def conclude_command(self, device_id: str, record: CommandRecord) -> None:
        """Record how a command ended."""
        self._connection.execute(
            "UPDATE command SET status = ?, reason = ?, at = ? WHERE device_id = ? AND command_id = ?",
            (record.status.value, record.reason, record.at, device_id, record.command_id),
        )

    def acknowledge_replies(self, device_id: str, command_ids: Iterable[str]) -> None:
        """The cloud has committed the final replies of these commands."""
        self._connection.executemany(
            "UPDATE command SET reply_acknowledged = 1 WHERE device_id = ? AND command_id = ?",
            [(device_id, command_id) for command_id in command_ids],
        )

    def open_commands(self, device_id: str) -> list[CommandRecord]:
        """Commands that still run or whose final reply is not acknowledged, oldest first."""
        return [
            _command(fields)
            for fields in self._connection.execute(
                f"SELECT {_COLUMNS} FROM command WHERE device_id = ? AND NOT reply_acknowledged ORDER BY id",  # noqa: S608
                (device_id,),
            )
        ]

    def command(self, device_id: str, command_id: str) -> CommandRecord | None:
        """What is known of a command id."""
        fields = self._connection.execute(
            f"SELECT {_COLUMNS} FROM command WHERE device_id = ? AND command_id = ?",  # noqa: S608
            (device_id, command_id),
        ).fetchone()
        return _command(fields) if fields else None

    def known_command(self, device_id: str, command_id: str, not_after: int) -> tuple[CommandRecord | None, bool]:
        """(what is known of a command id, whether an unknown one that ends at `not_after` may have been forgotten)."""
        _, floor, ceiling = self._memory(device_id)
        return self.command(device_id, command_id), not_after <= floor or not_after >= ceiling


def _command(fields: tuple[str, str, Reason, int, int, int]) -> CommandRecord:
    command_id, status, reason, at, acknowledged, not_after = fields
    return CommandRecord(command_id, ReplyStatus(status), reason, at, bool(acknowledged), not_after)
