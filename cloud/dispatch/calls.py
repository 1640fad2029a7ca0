"""Emergency calls: their rows, and who is told at once. Nothing here groups, delays or limits an emergency."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update

from cloud import audit
from cloud.dispatch import audience, notices
from cloud.dispatch.audience import AUDIENCES, Page
from cloud.dispatch.letters import EMERGENCY, FOLLOW_UP, INBOX, row_of
from cloud.dispatch.notices import Place
from cloud.dispatch.rows import insert_into, insert_new
from cloud.model import CallChange, Notification
from cloud.tables import call, call_transition
from fleet.incident import CallState, Priority
from fleet.kind import CallStep

ACKNOWLEDGE: Final = "acknowledge"
ESCALATE: Final = "escalate"
ASKED_NAMES_MAX: Final = 10
"""Names in the text of a page; all of them stand in the delivery log."""

_update = update(call).where(call.c.id == bindparam("b_id"))
_step_columns: Final = {
    ACKNOWLEDGE: _update.values(
        state=bindparam("b_state"),
        changed_at=bindparam("b_at"),
        acknowledged_at=bindparam("b_at"),
        acknowledged_by=bindparam("b_actor"),
    ),
    CallStep.ATTEND.value: _update.values(
        state=bindparam("b_state"), changed_at=bindparam("b_at"), attended_at=bindparam("b_at")
    ),
    CallStep.CLEAR_AT_ORIGIN.value: _update.values(
        state=bindparam("b_state"), changed_at=bindparam("b_at"), cleared_at=bindparam("b_at")
    ),
    ESCALATE: _update.values(changed_at=bindparam("b_at"), escalation=bindparam("b_escalation")),
}


def step_of(change: CallChange) -> str:
    """The name of a change as it stands in `call_transition.step`."""
    if change.step is not None:
        return change.step.value
    return ACKNOWLEDGE if change.escalation is None else ESCALATE


def _mark_of(change: CallChange) -> str:
    return f"escalation:{change.escalation}" if step_of(change) == ESCALATE else change.event_id


def record(tx: Connection, changes: Sequence[CallChange]) -> list[CallChange]:
    """Store transitions and states; returns the changes that are new, in order. A repeat changes nothing."""
    columns = call_transition.c
    returned = insert_new(
        tx,
        call_transition,
        [
            {
                "call_id": change.call_id,
                "step": step_of(change),
                "before": change.before.value,
                "after": change.after.value,
                "at": change.at,
                "received_at": change.received_at or change.at,
                "actor": change.actor,
                "event_id": _mark_of(change),
            }
            for change in changes
        ],
        [columns.call_id, columns.step, columns.event_id, columns.at],
    )
    unseen = {(row.call_id, row.step, row.event_id, row.at) for row in returned}
    fresh: list[CallChange] = []
    for change in changes:
        key = (change.call_id, step_of(change), _mark_of(change), change.at)
        if key in unseen:
            unseen.discard(key)
            fresh.append(change)
            _apply(tx, change)
    return fresh


def _apply(tx: Connection, change: CallChange) -> None:
    step = step_of(change)
    if step == CallStep.PRESS.value:
        statement = insert_into(tx, call).values(
            id=change.call_id,
            device_id=change.device_id,
            kind=change.kind,
            state=change.after.value,
            pressed_at=change.at,
            received_at=change.received_at or change.at,
            escalation=0,
            changed_at=change.at,
        )
        # A further press opens the call again; who acknowledged it before stands in the transitions.
        again = {"acknowledged_at": None, "acknowledged_by": None, "attended_at": None}
        if change.after is change.before:
            again = {}
        statement = statement.on_conflict_do_update(
            index_elements=[call.c.id],
            set_={"state": change.after.value, "changed_at": change.at, "escalation": change.escalation or 0, **again},
        )
        tx.execute(statement)
        return
    values: dict[str, Any] = {"b_id": change.call_id, "b_at": change.at}
    if step == ESCALATE:
        values["b_escalation"] = change.escalation
    else:
        values["b_state"] = change.after.value
    if step == ACKNOWLEDGE:
        values["b_actor"] = change.actor
    tx.execute(_step_columns[step], values)


def announce(
    tx: Connection, changes: Sequence[CallChange], where: dict[str, Place], channels: Sequence[str], *, now_ms: int
) -> None:
    """Page people for presses and escalations; call them off when somebody took over.

    `channels`: those that many read, and those that lead to one person (`letters.PERSONAL_STAGES`).
    """
    pending: list[dict[str, Any]] = []
    pages: dict[int, Page] = {}  # hundreds of presses at once ask the same people
    for change in changes:
        place = where[change.device_id]
        if change.after is CallState.CALLING:
            level = change.escalation or 0
            if level not in pages:
                pages[level] = audience.page(tx, level, channels, now_ms)
            pending += _page_rows(tx, change, place, pages[level], channels, now_ms=now_ms)
            continue
        if change.before is CallState.CALLING:
            notices.put(tx, pending)
            pending = []
            notices.withdraw(tx, [change.call_id], _REASONS[step_of(change)], now_ms, urgent=True)
        pending += _follow_up_rows(tx, change, place, channels, now_ms)
    notices.put(tx, pending)


def _page_rows(
    tx: Connection, change: CallChange, place: Place, page: Page, channels: Sequence[str], *, now_ms: int
) -> list[dict[str, Any]]:
    for passed, why in page.passed_over.items():
        detail = {"audience": passed, "reason": why, "instead": page.audience, "device_id": change.device_id}
        audit.record(tx, now_ms, "system", "call.audience_bridged", change.call_id, detail)
    notification = _page(change, place, page, now_ms)
    step = _page_step(change)
    return [
        *notices.outbox_rows(notification, step, channels, urgent=EMERGENCY, available_at=now_ms),
        *audience.personal_rows(notification, step, page.contacts, now_ms),
    ]


def _follow_up_rows(
    tx: Connection, change: CallChange, place: Place, channels: Sequence[str], now_ms: int
) -> list[dict[str, Any]]:
    """Those who were paged must learn that somebody took over, and that it is over; the rest is for the record."""
    notification = _info(change, place, notices.person_name(tx, change.actor) if change.actor else "", now_ms)
    step = f"{step_of(change)}:{change.at}:{_mark_of(change)}"
    over = change.before is CallState.CALLING or change.after is CallState.CLEARED
    rows = notices.outbox_rows(notification, step, channels if over else [INBOX], urgent=FOLLOW_UP, available_at=now_ms)
    if over:
        rows += [
            row_of(
                notification, step, way.channel, urgent=FOLLOW_UP, available_at=now_ms, recipient=way.person_id,
                contact_id=way.id,
            )
            for way in audience.paged(tx, change.call_id)
        ]  # fmt: skip
    return rows


_REASONS: Final = {
    ACKNOWLEDGE: "acknowledged",
    CallStep.ATTEND.value: "attended",
    CallStep.CLEAR_AT_ORIGIN.value: "cleared at the origin",
}

_INFO_TITLES: Final = {
    ACKNOWLEDGE: ("{who}已接警：{place}", "{who} is on the way: {place}"),
    CallStep.ATTEND.value: ("已有人到场：{place}", "Somebody is there: {place}"),
    CallStep.CLEAR_AT_ORIGIN.value: ("呼叫已在现场解除：{place}", "Cleared at the place itself: {place}"),
}


def _page_step(change: CallChange) -> str:
    # A call that is opened again starts its ladder again, so the number alone would not be unique.
    return (
        f"press:{change.event_id}" if change.step is CallStep.PRESS else f"escalation:{change.escalation}:{change.at}"
    )


def _page(change: CallChange, place: Place, page: Page, now_ms: int) -> Notification:
    level = change.escalation or 0
    asked = AUDIENCES[page.audience]
    title_zh, title_en = f"紧急呼叫（{asked.zh}）：{place.name}", f"Emergency call ({asked.en}): {place.name}"
    if step_of(change) == ESCALATE and level:  # level 0: a test that nobody cleared in time is a call as any other
        title_zh, title_en = (
            f"紧急呼叫仍无人接警（第 {level} 次升级：{asked.zh}）：{place.name}",
            f"Emergency call still unanswered (escalation {level}: {asked.en}): {place.name}",
        )
    return Notification(
        "call",
        change.call_id,
        Priority.EMERGENCY.value,
        change.device_id,
        title_zh,
        title_en,
        {
            **_facts(change, place),
            "audience": {"zh": asked.zh, "en": asked.en},
            "asked": "、".join(one.name for one in page.people[:ASKED_NAMES_MAX]),
            "passed_over": list(page.passed_over),
        },
        now_ms,
        page.audience,
    )


def _info(change: CallChange, place: Place, who: str, now_ms: int) -> Notification:
    title_zh, title_en = (text.format(who=who, place=place.name) for text in _INFO_TITLES[step_of(change)])
    facts = {**_facts(change, place), "actor": change.actor, "actor_name": who}
    return Notification("call", change.call_id, Priority.LOW.value, change.device_id, title_zh, title_en, facts, now_ms)


def _facts(change: CallChange, place: Place) -> dict[str, Any]:
    return {
        "call_id": change.call_id,
        "device_id": change.device_id,
        "kind": change.kind,
        "step": step_of(change),
        "state": change.after.value,
        "at": change.at,
        "event_id": change.event_id if change.step is not None else "",
        "escalation": change.escalation or 0,
        **place.facts(),
    }
