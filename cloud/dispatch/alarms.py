"""Alarms: their rows, what hides them, and the notice of each that people must be told of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update

from cloud.dispatch.floods import Notice, tier_of
from cloud.dispatch.notices import Place
from cloud.dispatch.rows import insert_into, insert_new
from cloud.model import AlarmChange, HiddenBy, HidingChange, Notification, ViewChange
from cloud.tables import alarm, alarm_transition, hiding
from fleet.incident import AlarmEvent, AlarmState, AlarmView
from fleet.kind import Text

_by_id = update(alarm).where(alarm.c.id == bindparam("b_id"))
_moved = _by_id.values(state=bindparam("b_state"), changed_at=bindparam("b_at"))
_updates: Final = {
    AlarmEvent.RETURN: _moved.values(returned_at=bindparam("b_at")),
    AlarmEvent.RETURN_LATCHED: _moved.values(returned_at=bindparam("b_at")),
    AlarmEvent.REALARM: _moved.values(told_at=bindparam("b_at")),
    AlarmEvent.RESET: _moved,
    AlarmEvent.ACKNOWLEDGE: _moved.values(acknowledged_at=bindparam("b_at"), acknowledged_by=bindparam("b_actor")),
}
_view = _by_id.values(
    view=bindparam("b_view"),
    hidden_until=bindparam("b_until"),
    hidden_by=bindparam("b_by"),
    hidden_reason=bindparam("b_reason"),
)
_shown = _view.values(told_at=bindparam("b_at"))
_end_hiding = (
    update(hiding)
    .where(hiding.c.id == bindparam("b_id"), hiding.c.ended_at.is_(None))
    .values(ended_at=bindparam("b_at"), ended_by=bindparam("b_by"), ended_reason=bindparam("b_reason"))
)
_TO_BE_SEEN: Final = frozenset({AlarmState.UNACKNOWLEDGED, AlarmState.LATCHED_UNACKNOWLEDGED})
_NEWS_BEFORE: Final = frozenset({AlarmState.NORMAL, AlarmState.LATCHED_ACKNOWLEDGED})


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
                "received_at": change.received_at or change.at,
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
            **{name: statement.excluded[name] for name in (*_HIDDEN, "told_at")},
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
                "received_at": change.received_at or change.at,
                "told_at": (change.received_at or change.at) if change.view is AlarmView.SHOWN else None,
                **_hidden(change.view, change.hidden),
            }
            for change in changes
        ],
    )


_HIDDEN: Final = ("view", "hidden_until", "hidden_by", "hidden_reason")


def _hidden(view: AlarmView, hidden: HiddenBy | None) -> dict[str, Any]:
    return {
        "view": view.value,
        "hidden_until": hidden.until if hidden else None,
        "hidden_by": hidden.actor if hidden else "",
        "hidden_reason": hidden.reason if hidden else "",
    }


def record_views(tx: Connection, changes: Sequence[ViewChange]) -> list[ViewChange]:
    """Hide and show; returns the changes that are new, in order. A repeat changes nothing."""
    columns = alarm_transition.c
    rows = [
        {
            "alarm_id": change.alarm_id,
            "event": change.event.value,
            "before": change.before.value,
            "after": change.after.value,
            "at": change.at,
            "actor": change.actor or (change.hidden.actor if change.hidden else "rules"),
            "note": change.hidden.reason if change.hidden else "",
            "received_at": change.at,
        }
        for change in changes
    ]
    key = [columns.alarm_id, columns.event, columns.before, columns.at]
    unseen = {tuple(row) for row in insert_new(tx, alarm_transition, rows, key)}
    fresh: list[ViewChange] = []
    for change in changes:
        mark = (change.alarm_id, change.event.value, change.before.value, change.at)
        if mark not in unseen:
            continue
        unseen.discard(mark)
        fresh.append(change)
        hidden = _hidden(change.after, change.hidden)
        values = {"b_id": change.alarm_id, **{f"b_{name.removeprefix('hidden_')}": hidden[name] for name in _HIDDEN}}
        tx.execute(_shown, {**values, "b_at": change.at}) if is_shown_again(change) else tx.execute(_view, values)
    return fresh


def record_hidings(tx: Connection, changes: Sequence[HidingChange]) -> None:
    """What people hid, and its end. A repeat changes nothing."""
    for change in changes:
        if change.ended_at is not None:
            values = {"b_at": change.ended_at, "b_by": change.ended_by, "b_reason": change.ended_reason}
            tx.execute(_end_hiding, {"b_id": change.id, **values})
            continue
        row = {
            "id": change.id, "device_id": change.device_id, "key": change.key, "form": change.form,
            "window_id": change.window_id, "one_shot": int(change.one_shot), "from_at": change.from_at,
            "until_at": change.until_at, "actor": change.actor, "reason": change.reason, "created_at": change.at,
        }  # fmt: skip
        insert_new(tx, hiding, [row], [hiding.c.id])


def is_news(change: AlarmChange) -> bool:
    """Whether people must be told; one that comes back before anybody acknowledged it was told of already."""
    if change.view is not AlarmView.SHOWN:
        return False
    if change.event is AlarmEvent.REALARM:
        return True
    return change.event is AlarmEvent.ACTIVATE and change.before in _NEWS_BEFORE


def is_back(change: AlarmChange) -> bool:
    """Whether it is true again before anybody acknowledged it, for people to see."""
    shown = change.view is AlarmView.SHOWN
    return shown and change.event is AlarmEvent.ACTIVATE and change.before is AlarmState.RETURNED_UNACKNOWLEDGED


def is_shown_again(change: ViewChange) -> bool:
    """Whether what was hidden until now still has to be seen by somebody."""
    return change.after is AlarmView.SHOWN and change.state in _TO_BE_SEEN


def as_activation(change: ViewChange) -> AlarmChange:
    """What was hidden until now and is still true, as if it began to be so."""
    return AlarmChange(
        change.alarm_id, change.device_id, change.kind, change.definition, AlarmEvent.REALARM, change.state,
        change.state, change.at, received_at=change.at,
    )  # fmt: skip


def notice(
    change: AlarmChange, place: Place, order_id: str | None, now_ms: int, activated_at: int | None = None
) -> Notice:
    """What people are told of a new alarm, or again of one that is still true (its event is REALARM then)."""
    definition = change.definition
    again = change.event is AlarmEvent.REALARM
    facts: dict[str, Any] = {
        "alarm_id": change.alarm_id,
        "key": definition.key,
        "device_id": change.device_id,
        "kind": change.kind,
        "state": change.after.value,
        "activated_at": change.at if activated_at is None else activated_at,
        "again": again,
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
        f"{'仍未恢复 · ' if again else ''}{definition.title.zh}：{place.name}",
        f"{'Still true · ' if again else ''}{definition.title.en}: {place.name}",
        facts,
        now_ms,
    )
    step = "new" if change.event is AlarmEvent.ACTIVATE and change.before is AlarmState.NORMAL else f"at:{change.at}"
    return Notice(tier_of(notification), definition.key, definition.title, notification, step)


def _both(text: Text) -> Mapping[str, str]:
    return {"zh": text.zh, "en": text.en}
