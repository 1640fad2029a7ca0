"""Alarms: their rows, and the notice of each new one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update

from cloud.dispatch.floods import Notice, tier_of
from cloud.dispatch.notices import Place
from cloud.dispatch.rows import insert_into, insert_new
from cloud.model import AlarmChange, Notification
from cloud.tables import alarm, alarm_transition
from fleet.incident import AlarmEvent, AlarmState
from fleet.kind import Text

_by_id = update(alarm).where(alarm.c.id == bindparam("b_id"))
_updates: Final = {
    AlarmEvent.RETURN: _by_id.values(
        state=bindparam("b_state"), changed_at=bindparam("b_at"), returned_at=bindparam("b_at")
    ),
    AlarmEvent.ACKNOWLEDGE: _by_id.values(
        state=bindparam("b_state"),
        changed_at=bindparam("b_at"),
        acknowledged_at=bindparam("b_at"),
        acknowledged_by=bindparam("b_actor"),
    ),
}


def record(tx: Connection, changes: Sequence[AlarmChange]) -> list[AlarmChange]:
    """Store transitions and states; returns the changes that are new, in order. A repeat changes nothing."""
    columns = alarm_transition.c
    returned = insert_new(
        tx,
        alarm_transition,
        [
            {
                "alarm_id": change.alarm_id,
                "event": change.event.value,
                "before": change.before.value,
                "after": change.after.value,
                "at": change.at,
                "actor": change.actor,
                "note": change.note,
            }
            for change in changes
        ],
        [columns.alarm_id, columns.event, columns.before, columns.at],
    )
    unseen = {tuple(row) for row in returned}
    fresh: list[AlarmChange] = []
    for change in changes:
        key = (change.alarm_id, change.event.value, change.before.value, change.at)
        if key in unseen:
            unseen.discard(key)
            fresh.append(change)
    for same_event in _rounds(fresh):
        _apply(tx, same_event)
    return fresh


def _rounds(changes: Sequence[AlarmChange]) -> list[list[AlarmChange]]:
    """Lists that may be written at once: one event each, an alarm once in each, per alarm in order."""
    seen: defaultdict[str, int] = defaultdict(int)
    rounds: defaultdict[tuple[int, str], list[AlarmChange]] = defaultdict(list)
    for change in changes:
        rounds[seen[change.alarm_id], change.event.value].append(change)
        seen[change.alarm_id] += 1
    return [rounds[key] for key in sorted(rounds)]


def _apply(tx: Connection, changes: Sequence[AlarmChange]) -> None:
    event = changes[0].event
    if event is not AlarmEvent.ACTIVATE:
        keys = (
            ("b_id", "b_state", "b_at", "b_actor") if event is AlarmEvent.ACKNOWLEDGE else ("b_id", "b_state", "b_at")
        )
        rows = [(change.alarm_id, change.after.value, change.at, change.actor) for change in changes]
        tx.execute(_updates[event], [dict(zip(keys, row, strict=False)) for row in rows])
        return
    statement = insert_into(tx, alarm)
    statement = statement.on_conflict_do_update(
        index_elements=[alarm.c.id],
        set_={
            "state": statement.excluded.state,
            "changed_at": statement.excluded.changed_at,
            "returned_at": None,
            "acknowledged_at": None,
            "acknowledged_by": None,
        },
    )
    tx.execute(
        statement,
        [
            {
                "id": change.alarm_id,
                "device_id": change.device_id,
                "kind": change.kind,
                "key": change.definition.key,
                "priority": change.definition.priority.value,
                "state": change.after.value,
                "activated_at": change.at,
                "changed_at": change.at,
            }
            for change in changes
        ],
    )


def is_news(change: AlarmChange) -> bool:
    """Whether people must be told; one that comes back before anybody acknowledged it was told of already."""
    return change.event is AlarmEvent.ACTIVATE and change.before is AlarmState.NORMAL


def notice(change: AlarmChange, place: Place, order_id: str | None, now_ms: int) -> Notice:
    """What people are told of a new alarm."""
    definition = change.definition
    facts: dict[str, Any] = {
        "alarm_id": change.alarm_id,
        "key": definition.key,
        "device_id": change.device_id,
        "kind": change.kind,
        "state": change.after.value,
        "activated_at": change.at,
        "title": _both(definition.title),
        "cause": _both(definition.cause),
        "consequence": _both(definition.consequence),
        "action": _both(definition.action),
        "respond_within_s": definition.respond_within_s,
        "order_id": order_id,
        **place.facts(),
    }
    notification = Notification(
        "alarm",
        change.alarm_id,
        definition.priority.value,
        change.device_id,
        f"{definition.title.zh}：{place.name}",
        f"{definition.title.en}: {place.name}",
        facts,
        now_ms,
    )
    return Notice(tier_of(notification), definition.key, definition.title, notification)


def _both(text: Text) -> Mapping[str, str]:
    return {"zh": text.zh, "en": text.en}
