"""Supervision of emergency buttons by the clock: proof tests that are overdue, faults that need a substitute measure.

A button that nobody saw work for seven days, and a room that has had no way to call for help for two hours without a
recorded substitute, are alarms whose condition is time, like silence. They count in the cloud's business time: a room
whose clock is wrong is not thereby tested. Which events prove a button, and which faults take away the way to call,
says the kind (`PROOFS`, `CALL_FAULTS` in its `rules.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.model import Decisions, DeviceLane, Intent
from cloud.ports import IntentRefusedError
from cloud.rules.conditions import NO_READINGS, SILENT
from cloud.rules.desk import AlarmStatus, Button, Desk
from cloud.rules.moves import move_alarm
from cloud.rules.timed_alarms import SUBSTITUTE_DUE, TEST_OVERDUE
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ALARM, AlarmEvent
from fleet.kind import AlarmDefinition

PROOF_EVERY_MS: Final = 7 * 86_400 * MILLISECONDS_PER_SECOND
SUBSTITUTE_AFTER_MS: Final = 2 * 3_600 * MILLISECONDS_PER_SECOND
MEASURE_MS_MAX: Final = 7 * 86_400 * MILLISECONDS_PER_SECOND
LINK_FAULTS: Final = (SILENT, NO_READINGS)


def faults(desk: Desk, call_faults: Sequence[str]) -> list[str]:
    """Keys of what is wrong now with the room's way to call for help."""
    found = []
    for key in (*LINK_FAULTS, *call_faults):
        status = desk.alarms.get(key)
        if status is not None and status.condition:
            found.append(key)
    return found


def watch_from(lane: DeviceLane, now_ms: int) -> None:
    """Supervision begins with the first word of the room; a button is never taken for proven by that."""
    button: Button = lane.desk.button
    if not button.watched_since:
        button.watched_since = now_ms


def next_due(lane: DeviceLane) -> Sequence[int]:
    """When `on_timer` is wanted."""
    desk: Desk = lane.desk
    button = desk.button
    due = []
    if button.watched_since and not _holds(desk, TEST_OVERDUE):
        due.append(_test_due(button))
    if button.faulty_since and not _holds(desk, SUBSTITUTE_DUE):
        due.append(max(button.faulty_since + SUBSTITUTE_AFTER_MS, button.measure_until))
    return due


def on_change(
    lane: DeviceLane, definitions: Mapping[str, AlarmDefinition], call_faults: Sequence[str], now_ms: int,
    decisions: Decisions,
) -> None:  # fmt: skip
    """After each change of its alarms and at each timer: begin and end both conditions. Repeated it changes nothing."""
    desk: Desk = lane.desk
    button = desk.button
    if not faults(desk, call_faults):
        button.faulty_since = button.measure_until = 0
    elif not button.faulty_since:
        button.faulty_since = now_ms
        decisions.attention.add(lane.device_id)
    overdue = bool(button.watched_since) and now_ms >= _test_due(button)
    _set(lane, definitions, TEST_OVERDUE, overdue, now_ms, decisions)
    since = button.faulty_since
    unattended = bool(since) and now_ms >= max(since + SUBSTITUTE_AFTER_MS, button.measure_until)
    _set(lane, definitions, SUBSTITUTE_DUE, unattended, now_ms, decisions)


def on_proof(lane: DeviceLane, now_ms: int) -> None:
    """The button was shown to work; `on_change` follows."""
    lane.desk.button.proven_at = now_ms


def record_measure(lane: DeviceLane, intent: Intent, now_ms: int) -> dict[str, Any]:
    """A substitute measure until `until_at`; `on_change` follows. Raises IntentRefusedError."""
    button: Button = lane.desk.button
    until_at = int(intent.arguments.get("until_at", 0))
    if not now_ms < until_at <= now_ms + MEASURE_MS_MAX:
        raise IntentRefusedError("a substitute measure ends later than now and within seven days")
    if not button.faulty_since:
        raise IntentRefusedError("this room can call for help: no substitute measure is needed")
    button.measure_until = until_at
    return {"faulty_since": button.faulty_since, "until_at": until_at}


def clock_set(desk: Desk, now_ms: int) -> None:
    """The wall clock was set: nothing remembered lies in the future."""
    button = desk.button
    for name in ("watched_since", "proven_at", "faulty_since", "test_from"):
        setattr(button, name, min(getattr(button, name), now_ms))
    button.test_until = 0
    button.measure_until = min(button.measure_until, now_ms + MEASURE_MS_MAX)


def _test_due(button: Button) -> int:
    return max(button.watched_since, button.proven_at) + PROOF_EVERY_MS


def _holds(desk: Desk, key: str) -> bool:
    status = desk.alarms.get(key)
    return status is not None and status.condition


def _set(
    lane: DeviceLane, definitions: Mapping[str, AlarmDefinition], key: str, true: bool, now_ms: int,  # noqa: FBT001
    decisions: Decisions,
) -> None:  # fmt: skip
    desk: Desk = lane.desk
    if true is _holds(desk, key):
        return
    status = desk.alarms.setdefault(key, AlarmStatus())
    status.condition, status.since = true, now_ms
    decisions.attention.add(lane.device_id)
    event = AlarmEvent.ACTIVATE if true else AlarmEvent.RETURN
    if ALARM.allows(status.state, event):
        move_alarm(lane, definitions[key], status, event, now_ms, decisions)
