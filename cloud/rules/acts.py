"""What people do to the alarms of one device: acknowledge, shelve, take out of service, reset a latch.

Each is an intent in the device's lane. A refusal raises IntentRefusedError and changes nothing. Who acts says why:
only an acknowledgement needs no reason.
"""

from collections.abc import Mapping
from typing import Any, Final

from cloud.model import Decisions, DeviceLane, Intent
from cloud.ports import IntentRefusedError
from cloud.rules import hiding
from cloud.rules.desk import AlarmStatus, Desk, Outage, Shelf
from cloud.rules.moves import identity, move_alarm
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ALARM, AlarmEvent, AlarmState
from fleet.kind import AlarmDefinition

Definitions = Mapping[str, AlarmDefinition]
REASON_CHARACTERS_MAX: Final = 500
SHELVE_S_MIN: Final = 60.0


def acknowledge(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """A person has seen it; it stays until its cause is gone."""
    key, status = _occurrence(lane, definitions, intent)
    if not ALARM.allows(status.state, AlarmEvent.ACKNOWLEDGE):
        raise IntentRefusedError(f"this alarm is {status.state.value}")
    note = str(intent.arguments.get("note", ""))
    move_alarm(lane, definitions[key], status, AlarmEvent.ACKNOWLEDGE, now_ms, decisions, intent.actor, note)
    return {"state": status.state.value}


def reset_latch(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """A person inspected the device on site. Whoever did has seen the alarm, too."""
    reason = _reason(intent)
    key, status = _occurrence(lane, definitions, intent)
    if status.state is AlarmState.LATCHED_UNACKNOWLEDGED:
        move_alarm(lane, definitions[key], status, AlarmEvent.ACKNOWLEDGE, now_ms, decisions, intent.actor, reason)
    if not ALARM.allows(status.state, AlarmEvent.RESET):
        latches = definitions[key].latching
        hint = "it can be reset once its cause is gone" if latches else "it does not latch"
        raise IntentRefusedError(f"this alarm is {status.state.value}: {hint}")
    move_alarm(lane, definitions[key], status, AlarmEvent.RESET, now_ms, decisions, intent.actor, reason)
    return {"state": status.state.value}


def shelve(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """Hide one alarm (`alarm_id` or `key`) for `for_s`, or with `one_shot` until it returns, up to its maximum."""
    reason = _reason(intent)
    key = _key(lane, definitions, intent)
    definition = definitions[key]
    longest_s = hiding.SHELVE_S_MAX[definition.priority]
    one_shot = intent.arguments.get("one_shot") is True
    asked = intent.arguments.get("for_s")
    for_s = longest_s if asked is None and one_shot else _seconds(asked)
    if for_s > longest_s:
        raise IntentRefusedError(
            f"an alarm of priority {definition.priority.value} is shelved for at most {longest_s / 3600:g} h"
        )
    status = lane.desk.alarms.get(key)
    if one_shot and (status is None or status.state is AlarmState.NORMAL):
        raise IntentRefusedError("a one-shot shelf ends when the alarm returns, and this one is normal")
    if status is None:
        status = lane.desk.alarms[key] = AlarmStatus()
    if status.shelf is not None:
        hiding.end_shelf(lane, key, status, now_ms, decisions, actor=intent.actor, reason=f"shelved anew: {reason}")
    until = now_ms + round(for_s * MILLISECONDS_PER_SECOND)
    shelf = Shelf(identity("shelf", intent.id), now_ms, until, one_shot, intent.actor, reason)
    status.shelf = shelf
    decisions.hidings.append(hiding.shelf_change(lane, key, shelf))
    return {"until": until, "one_shot": one_shot}


def unshelve(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """Show it again before its time."""
    reason = str(intent.arguments.get("reason", ""))[:REASON_CHARACTERS_MAX]
    key = _key(lane, definitions, intent)
    status = lane.desk.alarms.get(key)
    if status is None or status.shelf is None:
        raise IntentRefusedError("this alarm is not on the shelf")
    hiding.end_shelf(lane, key, status, now_ms, decisions, actor=intent.actor, reason=reason)
    return {"state": status.state.value}


def out_of_service(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """Take the device, or its alarm `key`, out of service until somebody puts it back.

    With `window_id` it is a maintenance window and ends by itself: `from_at` to `until_at`.
    """
    reason = _reason(intent)
    desk: Desk = lane.desk
    key = str(intent.arguments.get("key", ""))
    if key and key not in definitions:
        raise IntentRefusedError(f"{lane.device_id} has no alarm {key!r}")
    window_id = str(intent.arguments.get("window_id", ""))
    since, until = now_ms, None
    if window_id:
        since, until = _window(intent, now_ms)
    if any(one.key == key and one.window_id == window_id for one in desk.out_of_service):
        raise IntentRefusedError("it is out of service already")
    if len(desk.out_of_service) >= hiding.OUTAGES_MAX:
        raise IntentRefusedError(f"{lane.device_id} has {hiding.OUTAGES_MAX} windows and outages already")
    name = identity("outage", lane.device_id, window_id or intent.id, key)
    outage = Outage(name, key, since, until, intent.actor, reason, window_id, now_ms, begun=since <= now_ms)
    desk.out_of_service.append(outage)
    decisions.hidings.append(hiding.outage_change(lane, outage))
    return {"from_at": since, "until_at": until}


def in_service(
    lane: DeviceLane, definitions: Definitions, intent: Intent, now_ms: int, decisions: Decisions
) -> dict[str, Any]:
    """Back in service, before its time for a maintenance window (`window_id`)."""
    del definitions
    reason = str(intent.arguments.get("reason", ""))[:REASON_CHARACTERS_MAX]
    key, window_id = (str(intent.arguments.get(name, "")) for name in ("key", "window_id"))
    found = [one for one in lane.desk.out_of_service if one.key == key and one.window_id == window_id]
    if not found:
        raise IntentRefusedError("it is not out of service")
    for outage in found:
        hiding.end_outage(lane, outage, now_ms, decisions, actor=intent.actor, reason=reason)
    return {"ended": len(found)}


ACTS: Final = {
    "acknowledge_alarm": acknowledge,
    "shelve_alarm": shelve,
    "unshelve_alarm": unshelve,
    "out_of_service": out_of_service,
    "in_service": in_service,
    "reset_latch": reset_latch,
}


def _occurrence(lane: DeviceLane, definitions: Definitions, intent: Intent) -> tuple[str, AlarmStatus]:
    """The alarm an act speaks of, if that occurrence is not over."""
    alarm_id = intent.arguments.get("alarm_id")
    for key, status in lane.desk.alarms.items():
        known = alarm_id and status.alarm_id == alarm_id and key in definitions
        if known and status.state is not AlarmState.NORMAL:
            return key, status
    raise IntentRefusedError("this alarm is over")


def _key(lane: DeviceLane, definitions: Definitions, intent: Intent) -> str:
    """By the id of an occurrence, be it over or not, or by the alarm's key."""
    alarm_id, key = intent.arguments.get("alarm_id"), str(intent.arguments.get("key", ""))
    if alarm_id:
        key = next((name for name, status in lane.desk.alarms.items() if status.alarm_id == alarm_id), "")
    if key not in definitions:
        raise IntentRefusedError(f"{lane.device_id} has no such alarm")
    return key


def _reason(intent: Intent) -> str:
    reason = str(intent.arguments.get("reason", "")).strip()
    if not reason:
        raise IntentRefusedError("say why: a reason is kept with every such act")
    return reason[:REASON_CHARACTERS_MAX]


def _seconds(asked: Any) -> float:
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked >= SHELVE_S_MIN:
        raise IntentRefusedError(f"say for how long, at least {SHELVE_S_MIN:g} s, or one-shot")
    return float(asked)


def _window(intent: Intent, now_ms: int) -> tuple[int, int]:
    """From and until of a maintenance window."""
    since, until = intent.arguments.get("from_at"), intent.arguments.get("until_at")
    if not isinstance(since, int) or not isinstance(until, int) or until <= max(since, now_ms):
        raise IntentRefusedError("a maintenance window ends after it begins, and later than now")
    since = max(since, now_ms)
    if until - since > hiding.WINDOW_S_MAX * MILLISECONDS_PER_SECOND:
        raise IntentRefusedError(f"a maintenance window lasts at most {hiding.WINDOW_S_MAX / 3600:g} h")
    if since - now_ms > hiding.WINDOW_AHEAD_S_MAX * MILLISECONDS_PER_SECOND:
        raise IntentRefusedError(f"plan it at most {hiding.WINDOW_AHEAD_S_MAX / 86_400:g} days ahead")
    return since, until
