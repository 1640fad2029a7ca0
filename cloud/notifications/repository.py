"""Deliveries, contact points and wishes in SQL."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from cloud.dispatch.rows import insert_into
from cloud.tables import contact_point, delivery_attempt, notification_preference, outbox, person

SHOWN_MAX: Final = 500

_a = delivery_attempt.c
_p = contact_point.c


def deliveries(
    tx: Connection, wanted: Mapping[str, str], before: int | None = None, limit: int = SHOWN_MAX
) -> list[Row[Any]]:
    """Attempts, newest first, with `recipient_name`. `wanted` maps columns (`reference`, `channel` …) to values."""
    joined = delivery_attempt.outerjoin(person, person.c.id == _a.recipient)
    statement = select(*_a, person.c.name.label("recipient_name")).select_from(joined)
    for column, value in wanted.items():
        statement = statement.where(_a[column] == value)
    if before is not None:
        statement = statement.where(_a.id < before)
    return list(tx.execute(statement.order_by(_a.id.desc()).limit(limit)))


def deliveries_of(tx: Connection, reference: str, limit: int = SHOWN_MAX) -> list[Row[Any]]:
    """Every attempt to tell anybody of this call, alarm or order, oldest first, with `recipient_name`.

    For the pages that show one of them: columns of `delivery_attempt` and the recipient's name (None: a channel that
    many read).
    """
    return deliveries(tx, {"reference": reference}, None, limit)[::-1]


def not_attempted(tx: Connection, reference: str) -> list[Row[Any]]:
    """What was planned for this call, alarm or order and not sent: it waits, or was withdrawn (`last_error`)."""
    c = outbox.c
    joined = outbox.outerjoin(person, person.c.id == c.recipient)
    columns = (c.id, c.channel, c.recipient, c.contact_id, c.available_at, c.given_up_at, c.last_error, c.stage)
    statement = select(*columns, person.c.name.label("recipient_name")).select_from(joined)
    return list(tx.execute(statement.where(c.reference == reference, c.attempts == 0).order_by(c.id).limit(SHOWN_MAX)))


def contacts(tx: Connection, person_id: str | None = None) -> list[Row[Any]]:
    """One person's contact points, or everybody's, by person and age."""
    statement = select(contact_point).order_by(_p.person_id, _p.created_at, _p.id)
    return list(tx.execute(statement if person_id is None else statement.where(_p.person_id == person_id)))


def contact(tx: Connection, contact_id: str) -> Row[Any] | None:
    """One contact point, or None."""
    return tx.execute(select(contact_point).where(_p.id == contact_id)).one_or_none()


def same_contact(tx: Connection, person_id: str, channel: str, address: str) -> Row[Any] | None:
    """The person's contact point with that address, or None."""
    own = (_p.person_id == person_id) & (_p.channel == channel) & (_p.address == address)
    return tx.execute(select(contact_point).where(own)).one_or_none()


def add_contact(tx: Connection, values: Mapping[str, Any]) -> None:
    """Store a new one."""
    tx.execute(insert(contact_point).values(**values))


def change_contact(tx: Connection, contact_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one."""
    tx.execute(update(contact_point).where(_p.id == contact_id).values(**values))


def remove_contact(tx: Connection, contact_id: str) -> None:
    """Forget one; what waits for it is refused with that reason."""
    tx.execute(delete(contact_point).where(_p.id == contact_id))


def store_preferences(tx: Connection, person_id: str, values: Mapping[str, Any]) -> None:
    """Write somebody's wishes."""
    statement = insert_into(tx, notification_preference).values(person_id=person_id, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=[notification_preference.c.person_id], set_=dict(values)))


def people(tx: Connection, logins: Sequence[str]) -> dict[str, str]:
    """Ids by login."""
    found = tx.execute(select(person.c.login, person.c.id).where(person.c.login.in_(sorted(set(logins)))))
    return {row.login: row.id for row in found}
