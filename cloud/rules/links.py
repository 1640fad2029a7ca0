"""Rules over time and link that every kind has: silent, connected without readings, a link that comes and goes.

A device is *silent* when nothing was heard for its kind's time: a lost link alone is no alarm, the link comes
back by itself. It has *no readings* when it is heard but measures nothing. Its link is *unstable* after a run of
losses (`cloud.presence`); while it is, its silence is latched: it may begin, and ends with the run, so that a
device that comes and goes all day is told of once and not at every turn.

All of it counts only while we listen, and from there on with a fair chance: devices may need the whole jitter
of a reconnect, in real time, before they can be heard again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.model import Decisions, DeviceLane
from cloud.presence import STABLE_AFTER_MS, data_stale_after_ms
from cloud.rules.conditions import NO_READINGS, SILENT, UNSTABLE
from cloud.rules.desk import AlarmStatus, Desk
from cloud.rules.moves import move_alarm
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ALARM, AlarmEvent
from fleet.kind import AlarmDefinition, Kind
from fleet.sensors import Sensor

NEVER_HEARD_AFTER_S: Final = 600.0
"""Business seconds of listening after which a device that was enrolled and never spoke counts as silent."""
FAIR_CHANCE_S: Final = 30.0
"""Real seconds in which a device that lives is heard after we, or the broker, came back: its turn of 18 s
(`edge.reconnect`), its handshake and a hello that is repeated."""


@dataclass(frozen=True, slots=True)
class Limits:
    """One kind's times, business ms, and the definitions by key."""

    silent_after_ms: int
    readings_after_ms: int
    fair_chance_ms: int
    definitions: Mapping[str, AlarmDefinition]

    @classmethod
    def of(cls, kind: Kind, definitions: Mapping[str, AlarmDefinition], speed: float) -> "Limits":
        """`speed` of business time: what devices need to connect does not run faster with it."""
        fair_ms = round(FAIR_CHANCE_S * speed * MILLISECONDS_PER_SECOND)
        silent_ms = round(kind.silent_after_s * MILLISECONDS_PER_SECOND)
        return cls(silent_ms, max(data_stale_after_ms(kind), fair_ms), fair_ms, definitions)


def holds(desk: Desk, key: str) -> bool:
    """Whether the condition of a link alarm is true now."""
    status = desk.alarms.get(key)
    return status is not None and status.condition


def silent_at(lane: DeviceLane, limits: Limits, listening_since_ms: int) -> int:
    """When it counts as silent unless it is heard before."""
    if not lane.last_heard_at:
        return listening_since_ms + max(limits.silent_after_ms, round(NEVER_HEARD_AFTER_S * MILLISECONDS_PER_SECOND))
    fair_ms = max(limits.silent_after_ms, limits.fair_chance_ms)
    return max(lane.last_heard_at + limits.silent_after_ms, listening_since_ms + fair_ms)


def no_readings_at(lane: DeviceLane, limits: Limits, listening_since_ms: int) -> int | None:
    """When a device that is heard counts as one that measures nothing; None while it was never heard."""
    if not lane.last_heard_at:
        return None
    since = max(lane.data_at or lane.link_changed_at, listening_since_ms)
    silence: AlarmStatus | None = lane.desk.alarms.get(SILENT)
    if silence is not None:
        since = max(since, silence.since)  # it was silent before: its time begins with its first word
    return since + limits.readings_after_ms


def next_due(lane: DeviceLane, limits: Limits, listening_since_ms: int | None) -> Sequence[int]:
    """When these rules want `on_timer`."""
    desk: Desk = lane.desk
    due = []
    if listening_since_ms is not None and not holds(desk, SILENT):
        due.append(silent_at(lane, limits, listening_since_ms))
        at = None if holds(desk, NO_READINGS) else no_readings_at(lane, limits, listening_since_ms)
        if at is not None:
            due.append(at)
    if holds(desk, UNSTABLE):
        due.append(lane.presence.dropped_at + STABLE_AFTER_MS)
    return due


def on_timer(
    lane: DeviceLane, limits: Limits, now_ms: int, listening_since_ms: int | None, decisions: Decisions
) -> None:
    """Begin silence and missing readings, end an unstable run."""
    desk: Desk = lane.desk
    if listening_since_ms is not None and not holds(desk, SILENT):
        at = no_readings_at(lane, limits, listening_since_ms)
        if now_ms >= silent_at(lane, limits, listening_since_ms):
            _begin(lane, limits, SILENT, now_ms, decisions)
        elif at is not None and now_ms >= at and not holds(desk, NO_READINGS):
            _begin(lane, limits, NO_READINGS, now_ms, decisions)
    if holds(desk, UNSTABLE) and now_ms >= lane.presence.dropped_at + STABLE_AFTER_MS:
        _end(lane, limits, UNSTABLE, now_ms, decisions)
        if SILENT in desk.alarms and not holds(desk, SILENT):
            _return(lane, limits, SILENT, now_ms, decisions)


def on_alive(lane: DeviceLane, limits: Limits, now_ms: int, decisions: Decisions) -> None:
    """A sign of life of a device that was missed (`desk.missed`); a reading is one if it just arrived."""
    desk: Desk = lane.desk
    if holds(desk, SILENT):
        if holds(desk, UNSTABLE):
            status = desk.alarms[SILENT]
            status.condition, status.since = False, now_ms
            decisions.attention.add(lane.device_id)
        else:
            _end(lane, limits, SILENT, now_ms, decisions)
    if holds(desk, NO_READINGS) and lane.data_at >= desk.alarms[NO_READINGS].since:
        _end(lane, limits, NO_READINGS, now_ms, decisions)
    desk.missed = holds(desk, SILENT) or holds(desk, NO_READINGS)


def on_dropped(lane: DeviceLane, limits: Limits, now_ms: int, decisions: Decisions) -> None:
    """Its link was lost, and the twin counted it. Of a silent device more is not to be said."""
    desk: Desk = lane.desk
    decisions.attention.add(lane.device_id)
    if not holds(desk, SILENT) and not holds(desk, UNSTABLE) and lane.presence.is_unstable():
        presence = lane.presence
        seconds = (presence.dropped_at - presence.run_began_at) // MILLISECONDS_PER_SECOND
        _begin(lane, limits, UNSTABLE, now_ms, decisions, f"{presence.run_drops} losses in {seconds} s")


def sensor_changed(lane: DeviceLane, sensor: Sensor, *, lost: bool) -> None:
    """Remember when a sensor that gives nothing any more was last good; forget it once it gives values again."""
    if not lost:
        lane.presence.lost.pop(sensor.key, None)
        return
    good_at = lane.reading_before_at
    if sensor.good_at is not None:
        good_at = sensor.good_at(lane.state) or 0
    elif sensor.age_field:
        age_s = getattr(lane.state.reading, sensor.age_field) or 0.0
        good_at = lane.state.reading.at - round(age_s * MILLISECONDS_PER_SECOND)
    lane.presence.lost[sensor.key] = good_at


def _begin(lane: DeviceLane, limits: Limits, key: str, now_ms: int, decisions: Decisions, note: str = "") -> None:
    desk: Desk = lane.desk
    status = desk.alarms.setdefault(key, AlarmStatus())
    status.condition, status.since = True, now_ms
    desk.missed = desk.missed or key != UNSTABLE
    decisions.attention.add(lane.device_id)
    if ALARM.allows(status.state, AlarmEvent.ACTIVATE):
        move_alarm(lane, limits.definitions[key], status, AlarmEvent.ACTIVATE, now_ms, decisions, note=note)


def _end(lane: DeviceLane, limits: Limits, key: str, now_ms: int, decisions: Decisions) -> None:
    status = lane.desk.alarms[key]
    status.condition, status.since = False, now_ms
    decisions.attention.add(lane.device_id)
    _return(lane, limits, key, now_ms, decisions)


def _return(lane: DeviceLane, limits: Limits, key: str, now_ms: int, decisions: Decisions) -> None:
    status = lane.desk.alarms[key]
    if ALARM.allows(status.state, AlarmEvent.RETURN):
        move_alarm(lane, limits.definitions[key], status, AlarmEvent.RETURN, now_ms, decisions)
