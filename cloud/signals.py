"""How processes wake each other: topics, and a notice that is part of a transaction (decision 13, ADR 0009).

A signal is never the truth. Who hears one looks into the database; who misses one looks there a little later
anyway (every topic's listener polls). Within one process direct calls do the same and nothing here is used.

    topic      said by                              heard by
    outbox     whoever puts a row into the outbox   dispatch: its workers lease it
    commands   whoever orders a command             ingest: the owner of the device's shard sends it
    intents    api: an act of a person              ingest: the owner of the device's lane takes it
    answered   ingest: intents are committed        api: who asked reads the answer
    settled    ingest, dispatch: final outcomes     api: who waits for a command reads its outcome
    changes    any: something people look at        api: open pages
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, text

PAYLOAD_BYTES_MAX: Final = 7_900
"""PostgreSQL takes 7,999; the sender's name goes in front."""
_IDS_PER_NOTICE: Final = 100
_NOBODY: Final = "-"
"""Sender of what a transaction says: it may be heard in its own process, too."""

_NOTIFY: Final = text("SELECT pg_notify(:channel, :payload)")


class Topic(StrEnum):
    """What may have happened; the value is the channel's name."""

    OUTBOX = "fleet_outbox"
    COMMANDS = "fleet_commands"
    INTENTS = "fleet_intents"
    ANSWERED = "fleet_answered"
    SETTLED = "fleet_settled"
    CHANGES = "fleet_changes"


Heard = Callable[[str | None], None]
"""Called on the event loop's thread with the payload; None says that some may have been missed."""


def notify(tx: Connection, topic: Topic, ids: Sequence[str] = ()) -> None:
    """Tell other processes when this transaction is committed; on SQLite there are none."""
    if tx.dialect.name != "postgresql":
        return
    for start in range(0, max(len(ids), 1), _IDS_PER_NOTICE):
        payload = " ".join([_NOBODY, *ids[start : start + _IDS_PER_NOTICE]])
        tx.execute(_NOTIFY, {"channel": topic.value, "payload": payload})


class Alone:
    """`cloud.ports.Signals` of a process that has the database to itself."""

    def subscribe(self, topic: Topic, heard: Heard) -> None:
        """Nobody will ever say anything."""

    def publish(self, topic: Topic, payload: str) -> None:
        """Nobody listens."""

    async def run(self) -> None:
        """Nothing to keep."""
