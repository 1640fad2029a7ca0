"""SQL of people and sessions. A session's token is stored as its SHA-256 only."""

import hashlib
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from cloud.tables import person, session


def token_hash(token: str) -> str:
    """What is stored instead of the token; a 256-bit random token needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def person_by_login(tx: Connection, login: str) -> Row[Any] | None:
    return tx.execute(select(person).where(person.c.login == login)).one_or_none()


def person_by_id(tx: Connection, person_id: str) -> Row[Any] | None:
    return tx.execute(select(person).where(person.c.id == person_id)).one_or_none()


def persons(tx: Connection, after: str, limit: int) -> list[Row[Any]]:
    """People ordered by login, those after `after`."""
    return list(tx.execute(select(person).where(person.c.login > after).order_by(person.c.login).limit(limit)))


def add_person(tx: Connection, **columns: Any) -> None:
    """Raises IntegrityError if the login is taken."""
    tx.execute(insert(person).values(**columns))


def disable(tx: Connection, person_id: str, now_ms: int) -> None:
    """Close the account and end every session of it."""
    tx.execute(
        update(person).where(person.c.id == person_id, person.c.disabled_at.is_(None)).values(disabled_at=now_ms)
    )
    tx.execute(delete(session).where(session.c.person_id == person_id))


def set_language(tx: Connection, person_id: str, language: str) -> None:
    tx.execute(update(person).where(person.c.id == person_id).values(language=language))


def set_password_hash(tx: Connection, person_id: str, password_hash: str) -> None:
    tx.execute(update(person).where(person.c.id == person_id).values(password_hash=password_hash))


def add_session(tx: Connection, *, token: str, person_id: str, csrf_token: str, now_ms: int, expires_at: int) -> None:
    """Store a new session, and forget those of this person that have expired."""
    tx.execute(delete(session).where(session.c.person_id == person_id, session.c.expires_at <= now_ms))
    tx.execute(
        insert(session).values(
            token_hash=token_hash(token),
            person_id=person_id,
            csrf_token=csrf_token,
            created_at=now_ms,
            last_used_at=now_ms,
            expires_at=expires_at,
        )
    )


def person_of_token(tx: Connection, token: str, now_ms: int) -> Row[Any] | None:
    """The person behind a live session, with `csrf_token`; None if it ended, expired, or the account is closed."""
    return tx.execute(
        select(person, session.c.csrf_token, session.c.last_used_at, session.c.expires_at)
        .join(session, session.c.person_id == person.c.id)
        .where(session.c.token_hash == token_hash(token), session.c.expires_at > now_ms, person.c.disabled_at.is_(None))
    ).one_or_none()


def touch_session(tx: Connection, token: str, now_ms: int) -> None:
    tx.execute(update(session).where(session.c.token_hash == token_hash(token)).values(last_used_at=now_ms))


def end_session(tx: Connection, token: str) -> None:
    tx.execute(delete(session).where(session.c.token_hash == token_hash(token)))
