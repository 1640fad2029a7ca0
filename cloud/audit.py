"""Who did what to which object: written in the transaction of the act itself."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from cloud.tables import audit


def record(  # the columns of one line, in their order
    tx: Connection,
    at: int,
    actor: str,
    action: str,
    object: str,  # noqa: A002  # the audit's own word
    detail: Mapping[str, Any],
) -> None:
    """Append one line to the audit.

    Args:
        tx: the transaction of the act, so that neither exists without the other.
        at: business ms since the epoch.
        actor: id of the person who acted.
        action: what was done, as `<noun>.<verb>` (`work_order.accept`).
        object: id of what it was done to.
        detail: facts worth keeping (before, after, reason); never a secret.
    """
    text = msgspec.json.encode(dict(detail)).decode()
    tx.execute(insert(audit).values(at=at, actor=actor, action=action, object=object, detail=text))
