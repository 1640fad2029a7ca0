"""One transition of one alarm, as every rule makes it."""

import hashlib

from cloud.model import AlarmChange, Decisions, DeviceLane
from cloud.rules import hiding
from cloud.rules.desk import AlarmStatus
from fleet.incident import ALARM, AlarmEvent, AlarmState, AlarmView
from fleet.kind import AlarmDefinition

RULES: str = "rules"
"""Actor of what no person did."""

_CALLED_OUT = frozenset({AlarmEvent.ACTIVATE, AlarmEvent.REALARM})


def move_alarm(
    lane: DeviceLane,
    definition: AlarmDefinition,
    status: AlarmStatus,
    event: AlarmEvent,
    at: int,
    decisions: Decisions,
    actor: str = "",
    note: str = "",
    received_at: int = 0,
) -> None:
    """Move it and say so; raises IllegalTransitionError where its lifecycle has no such step.

    `at` is the reading's own time, `received_at` ours (`at` unless given). The return of an alarm that latches is
    `RETURN_LATCHED`. What came and went while it was hidden asks nobody for an acknowledgement.
    """
    now_ms = received_at or at
    if event is AlarmEvent.RETURN and definition.latching and ALARM.allows(status.state, AlarmEvent.RETURN_LATCHED):
        event = AlarmEvent.RETURN_LATCHED
    before = status.state
    status.state = ALARM.next(before, event)
    if before is AlarmState.NORMAL:
        status.alarm_id = identity("alarm", lane.device_id, definition.key, str(at))
        status.activated_at = at
        status.told_at = 0
    if event is AlarmEvent.ACTIVATE:
        status.view = hiding.view_of(lane.desk, definition, status, now_ms)[0]
    hidden = None
    if status.view is not AlarmView.SHOWN:
        hidden = hiding.view_of(lane.desk, definition, status, now_ms)[1]
    elif event in _CALLED_OUT:
        status.told_at = now_ms
    if event is AlarmEvent.ACKNOWLEDGE:
        status.told_at = now_ms
    decisions.alarms.append(
        AlarmChange(
            status.alarm_id,
            lane.device_id,
            lane.kind,
            definition,
            event,
            before,
            status.state,
            at,
            actor,
            note,
            status.view,
            now_ms,
            hidden,
        )
    )
    if event in {AlarmEvent.RETURN, AlarmEvent.RETURN_LATCHED}:
        if status.shelf is not None and status.shelf.one_shot:
            hiding.end_shelf(lane, definition.key, status, now_ms, decisions, actor=RULES, reason="the alarm returned")
        if status.state is AlarmState.RETURNED_UNACKNOWLEDGED and not status.told_at:
            note = "came and went while it was hidden"
            move_alarm(lane, definition, status, AlarmEvent.ACKNOWLEDGE, at, decisions, RULES, note, now_ms)


def identity(*parts: str) -> str:
    """A stable id, so that a replayed decision names the same row."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
