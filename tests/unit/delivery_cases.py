"""People with ways to reach them, and channels that note what they were given."""

from typing import Any

from sqlalchemy import Connection, insert, update

from cloud.adapters.sql.database import SqlDatabase
from cloud.model import Notification, Recipient
from cloud.tables import contact_point, metadata, person, shift
from tests.unit.dispatch_cases import NOW, rows

EVERY_CHANNEL = ("inbox", "webhook", "push", "chat", "mail", "sms", "voice", "person")
DAY_MS = 86_400_000


def sqlite_database(folder) -> SqlDatabase:
    """A fresh SQLite with the schema."""
    opened = SqlDatabase(f"sqlite:///{folder / 'state.db'}")
    opened.write_here(metadata.create_all)
    return opened


def add_contact(tx: Connection, person_id: str, channel: str, *, verified: bool = True, number: int = 1) -> str:
    identifier = f"{person_id}-{channel}-{number}"
    tx.execute(
        insert(contact_point).values(
            id=identifier, person_id=person_id, channel=channel, address=f"{channel}:{person_id}:{number}",
            created_at=NOW, verified_at=NOW if verified else None,
        )
    )  # fmt: skip
    return identifier


def fail_contact(tx: Connection, identifier: str) -> None:
    tx.execute(update(contact_point).where(contact_point.c.id == identifier).values(failing_since=NOW, failure="550"))


def add_crew(tx: Connection, people: dict[str, tuple[str, ...]], role: str = "crew", language: str = "zh_CN") -> None:
    """`people`: id → channels of the contact points."""
    for name, channels in people.items():
        values = {"id": name, "login": name, "name": name.title(), "role": role, "password_hash": "",
                  "language": language, "created_at": NOW}  # fmt: skip
        tx.execute(insert(person).values(**values))
        for channel in channels:
            add_contact(tx, name, channel)


def on_shift(
    tx: Connection, tier: str, *people: str, from_ms: int = NOW - DAY_MS, until_ms: int = NOW + DAY_MS
) -> None:
    tx.execute(
        insert(shift),
        [
            {
                "id": f"{tier}-{name}-{from_ms}",
                "plan_id": "plan",
                "tier": tier,
                "person_id": name,
                "from_at": from_ms,
                "until_at": until_ms,
            }
            for name in people
        ],
    )


def row_state(row: dict[str, Any]) -> str:
    if row["delivered_at"] is not None:
        return "delivered"
    return "withdrawn" if row["given_up_at"] is not None else "waiting"


def personal(database, table) -> list[tuple[str, str, int, str]]:
    """(person, channel, seconds after NOW, state) of rows that lead to a person."""
    found = database.read_here(lambda tx: rows(tx, table))
    return [
        (row["recipient"], row["channel"], (row["available_at"] - NOW) // 1000, row_state(row))
        for row in found
        if row["contact_id"]
    ]


class Telephone:
    """A personal channel that notes what it was given. `answers`: what the next attempts do, by person."""

    def __init__(self, name: str, **answers: list[Exception]) -> None:
        self.name = name
        self.answers = answers
        self.got: list[tuple[str, str, str]] = []

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        waiting = self.answers.get(recipient.person_id)
        if waiting:
            raise waiting.pop(0)
        self.got.append((recipient.person_id, notification.title_en, delivery_id))
