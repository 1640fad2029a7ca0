"""The part of the journal's database that remembers commands: which ids were seen, and how they ended."""

import sqlite3
from collections.abc import Iterable
from typing import Final

from edge.records import Bounds, CommandRecord
from fleet.messages import Reason, ReplyStatus

COMMAND_SCHEMA: Final = """
CREATE TABLE command (
    id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, command_id TEXT NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, at INTEGER NOT NULL, reply_acknowledged INTEGER NOT NULL, UNIQUE (device_id, command_id)
) STRICT;
"""


class CommandTable:
    """Operations inside the transaction of whoever holds the connection."""

    bounds: Bounds
    _connection: sqlite3.Connection

    def remember_command(self, device_id: str, record: CommandRecord) -> bool:
        """Keep a command id before anything moves; False if this storage has seen it."""
        added = self._connection.execute(
            "INSERT OR IGNORE INTO command (device_id, command_id, status, reason, at, reply_acknowledged) "
            "VALUES (?, ?, ?, ?, ?, 0)",
            (device_id, record.command_id, record.status.value, record.reason, record.at),
        )
        self._connection.execute(
            "DELETE FROM command WHERE device_id = ?1 AND id <= (SELECT id FROM command WHERE device_id = ?1 "
            "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (device_id, self.bounds.commands_max),
        )
        return added.rowcount == 1

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
                "SELECT command_id, status, reason, at, reply_acknowledged FROM command "
                "WHERE device_id = ? AND NOT reply_acknowledged ORDER BY id",
                (device_id,),
            )
        ]

    def command(self, device_id: str, command_id: str) -> CommandRecord | None:
        """What is known of a command id."""
        fields = self._connection.execute(
            "SELECT command_id, status, reason, at, reply_acknowledged FROM command "
            "WHERE device_id = ? AND command_id = ?",
            (device_id, command_id),
        ).fetchone()
        return _command(fields) if fields else None


def _command(fields: tuple[str, str, Reason, int, int]) -> CommandRecord:
    command_id, status, reason, at, acknowledged = fields
    return CommandRecord(command_id, ReplyStatus(status), reason, at, bool(acknowledged))
