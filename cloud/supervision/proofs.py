"""Keeps the history of proof tests: each press and each self-test, in the commit that stores the event."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection

import devices
from cloud.dispatch.rows import insert_new
from cloud.model import EventHandler, StoredEvent
from cloud.synthetic import is_synthetic
from cloud.tables import proof_test


def event_handlers() -> Mapping[tuple[str, str], EventHandler]:
    """Of every kind with an emergency button: what its `PROOFS` name."""
    found: dict[tuple[str, str], EventHandler] = {}
    for name, kind in devices.kinds().items():
        if kind.emergency:
            for type_, judge in getattr(devices.role(name, "rules"), "PROOFS", {}).items():
                found[name, type_] = partial(_store, judge)
    return found


def _store(judge: Callable[[Any], str], tx: Connection, event: StoredEvent) -> None:
    if is_synthetic(event.device_id):
        return
    failure = judge(event.body)
    row = {
        "device_id": event.device_id, "kind": event.kind, "at": event.occurred_at, "received_at": event.received_at,
        "how": event.type, "passed": int(not failure), "failure": failure, "event_id": event.event_id,
    }  # fmt: skip
    insert_new(tx, proof_test, [row], [proof_test.c.device_id, proof_test.c.event_id])
