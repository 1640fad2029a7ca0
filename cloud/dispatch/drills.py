"""Calls that are no cry for help: a button being tested, and the deployment calling itself. They page nobody.

They go through the same rows in the same commit as every other call; only who hears of them differs. A synthetic call
goes to the probe's channel alone and is handed back there; a test is shown on the pages and by the room's own light.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, update

from cloud.dispatch import notices
from cloud.dispatch.rows import identity
from cloud.model import CallChange, Notification
from cloud.synthetic import PROBE_CHANNEL
from cloud.tables import call
from fleet.incident import Priority
from fleet.kind import CallStep

HELP: Final = "help"
SYNTHETIC: Final = "synthetic"


def note(tx: Connection, changes: Sequence[CallChange], now_ms: int) -> None:
    """Say in its row what each call is for, and hand synthetic presses to the probe's channel."""
    rows = []
    for change in changes:
        if change.purpose != HELP and change.step is CallStep.PRESS:
            tx.execute(update(call).where(call.c.id == change.call_id).values(purpose=change.purpose))
        elif change.purpose == HELP and change.escalation is not None:  # a test may have become a cry for help
            tx.execute(update(call).where(call.c.id == change.call_id, call.c.purpose == "test").values(purpose=HELP))
        if change.purpose == SYNTHETIC and change.step is CallStep.PRESS:
            rows.append(_probe_row(change, now_ms))
    if rows:
        notices.put(tx, rows)


def for_people(changes: Sequence[CallChange]) -> list[CallChange]:
    """Those that page somebody, or call somebody off."""
    return [change for change in changes if change.purpose == HELP]


def for_pages(changes: Sequence[CallChange]) -> list[CallChange]:
    """Those that people see."""
    return [change for change in changes if change.purpose != SYNTHETIC]


def _probe_row(change: CallChange, now_ms: int) -> dict[str, object]:
    facts = {"event_id": change.event_id, "call_id": change.call_id}
    notification = Notification(
        SYNTHETIC, change.call_id, Priority.EMERGENCY.value, change.device_id, "合成呼叫", "Synthetic call", facts,
        now_ms, SYNTHETIC,
    )  # fmt: skip
    return {
        "delivery_id": identity(SYNTHETIC, change.event_id),
        "channel": PROBE_CHANNEL,
        "reference": change.call_id,
        "notification": notices.encode(notification),
        "urgent": 1,
        "created_at": now_ms,
        "available_at": now_ms,
    }
