"""Requests about money are done once: same key, same answer. Every function runs inside the caller's transaction.

The key belongs to the person. Same key with another body is refused (422); while the first request is
under way a repeat is told so (409); afterwards it gets the first answer again. A request whose process
died is taken up by the next repeat after `TAKE_OVER_AFTER_S`.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from fastapi import Header
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from cloud.api.problem import ProblemError
from cloud.tables import idempotency

TAKE_OVER_AFTER_S: Final = 10.0
"""Real seconds after which an unanswered request counts as dead."""
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=8,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="chosen by the client, one per purchase; repeat the request with the same key after a time-out",
    ),
]


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What the first request of this key was told."""

    status: int
    body: dict[str, Any]


def fingerprint(operation: str, body: Any) -> str:
    """Hash of what is asked for, independent of the order of its fields."""
    return hashlib.sha256(operation.encode() + b"\x00" + msgspec.json.encode(body, order="sorted")).hexdigest()


def object_id(person_id: str, key: str) -> str:
    """Id (32 hexadecimal digits) of the one thing that this person's key makes."""
    return hashlib.blake2b(f"{person_id}\x00{key}".encode(), digest_size=16).hexdigest()


def claim(
    tx: Connection, person_id: str, key: str, body_hash: str, *, now_ms: int, take_over_before_ms: int
) -> FirstAnswer | None:
    """Reserve the key; the answer of the first request if there is one already.

    Raises:
        ProblemError: 422 for another body, 409 while the first request is under way.
    """
    found = _row(tx, person_id, key)
    if found is None:
        try:
            with tx.begin_nested():
                tx.execute(
                    insert(idempotency).values(person_id=person_id, key=key, body_hash=body_hash, created_at=now_ms)
                )
        except IntegrityError:
            found = _row(tx, person_id, key)
        if found is None:
            return None
    if found.body_hash != body_hash:
        raise ProblemError(
            422,
            "key_reused",
            "Key used for something else",
            "This Idempotency-Key belongs to another request; take a new one.",
        )
    if found.status is not None:
        return FirstAnswer(found.status, msgspec.json.decode(found.answer))
    if found.created_at > take_over_before_ms:
        raise ProblemError(
            409, "in_flight", "Still under way", "The first request with this key is not finished.", retry_after_s=1
        )
    tx.execute(_where(update(idempotency), person_id, key).values(created_at=now_ms))
    return None


def settle(tx: Connection, person_id: str, key: str, status: int, body: Any) -> None:
    """Store the answer that every repeat will get; the first one stays."""
    tx.execute(
        _where(update(idempotency), person_id, key)
        .where(idempotency.c.status.is_(None))
        .values(status=status, answer=msgspec.json.encode(body).decode())
    )


def _where(statement: Any, person_id: str, key: str) -> Any:
    return statement.where(idempotency.c.person_id == person_id, idempotency.c.key == key)


def _row(tx: Connection, person_id: str, key: str) -> Any:
    return tx.execute(_where(select(idempotency), person_id, key)).first()
