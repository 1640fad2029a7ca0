"""One transition of one alarm, as every rule makes it."""

import hashlib

from cloud.model import AlarmChange, Decisions, DeviceLane
from cloud.rules.desk import AlarmStatus
from fleet.incident import ALARM, AlarmEvent, AlarmState
from fleet.kind import AlarmDefinition


def move_alarm(
    lane: DeviceLane,
    definition: AlarmDefinition,
    status: AlarmStatus,
    event: AlarmEvent,
    at: int,
    decisions: Decisions,
    actor: str = "",
    note: str = "",
) -> None:
    """Move it and say so; raises IllegalTransitionError where its lifecycle has no such step."""
    before = status.state
    status.state = ALARM.next(before, event)
    if before is AlarmState.NORMAL:
        status.alarm_id = identity("alarm", lane.device_id, definition.key, str(at))
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
        )
    )


def identity(*parts: str) -> str:
    """A stable id, so that a replayed decision names the same row."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
