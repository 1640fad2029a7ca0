"""What hides an alarm from people: shelves, parent alarms, maintenance windows, out of service (ADR 0022).

Hiding changes what people are told, never what is true: a hidden alarm goes on to activate and return. Reasons to
hide are facts on the desk; the view of an alarm is the strongest reason in force, worked out anew after every change,
so no reason can be left behind by another one that ended. Emergency calls know none of this.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from cloud.model import Decisions, DeviceLane, HiddenBy, HidingChange, ViewChange
from cloud.rules.desk import AlarmStatus, Desk, Outage, Shelf
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ALARM_TRUE, ALARM_VIEW, AlarmState, AlarmView, Priority, ViewEvent
from fleet.kind import AlarmDefinition

_HOUR_S: Final = 3_600.0
SHELVE_S_MAX: Final[Mapping[Priority, float]] = {
    Priority.EMERGENCY: 0.0,
    Priority.HIGH: 4 * _HOUR_S,
    Priority.MEDIUM: 24 * _HOUR_S,
    Priority.LOW: 7 * 24 * _HOUR_S,
}
"""Longest time on the shelf, one-shot or not; a longer one is refused."""
WINDOW_S_MAX: Final = 72 * _HOUR_S
"""Longest maintenance window."""
WINDOW_AHEAD_S_MAX: Final = 90 * 24 * _HOUR_S
OUTAGES_MAX: Final = 16
"""Windows and outages of one device at the same time."""

_EVENTS: Final = {
    AlarmView.SHOWN: ViewEvent.SHOW,
    AlarmView.SHELVED: ViewEvent.SHELVE,
    AlarmView.SUPPRESSED_BY_DESIGN: ViewEvent.SUPPRESS,
    AlarmView.OUT_OF_SERVICE: ViewEvent.TAKE_OUT_OF_SERVICE,
}


def view_of(
    desk: Desk, definition: AlarmDefinition, status: AlarmStatus, now_ms: int
) -> tuple[AlarmView, HiddenBy | None]:
    """Where an alarm belongs now, and why. A parent that is itself out of service hides nothing."""
    outage = _outage(desk, definition.key, now_ms)
    if outage is not None:
        return AlarmView.OUT_OF_SERVICE, HiddenBy(outage.actor, outage.reason, outage.until)
    for key in definition.suppressed_by:
        parent = desk.alarms.get(key)
        if parent is None or key == definition.key or not (parent.condition and parent.state in ALARM_TRUE):
            continue
        if _outage(desk, key, now_ms) is None:
            return AlarmView.SUPPRESSED_BY_DESIGN, HiddenBy(key, "follows from it, or cannot be trusted meanwhile")
    shelf = status.shelf
    if shelf is not None and now_ms < shelf.until:
        return AlarmView.SHELVED, HiddenBy(shelf.actor, shelf.reason, shelf.until)
    return AlarmView.SHOWN, None


def _outage(desk: Desk, key: str, now_ms: int) -> Outage | None:
    for outage in desk.out_of_service:
        if outage.key in {"", key} and outage.since <= now_ms and (outage.until is None or now_ms < outage.until):
            return outage
    return None


def review(
    lane: DeviceLane, definitions: Mapping[str, AlarmDefinition], now_ms: int, decisions: Decisions, actor: str = ""
) -> None:
    """Bring the view of every alarm of the device up to date, and say what changed for those that are not normal."""
    desk: Desk = lane.desk
    for key, status in desk.alarms.items():
        definition = definitions.get(key)
        if definition is None:
            continue
        view, hidden = view_of(desk, definition, status, now_ms)
        if view is status.view:
            continue
        before, event = status.view, _EVENTS[view]
        status.view = ALARM_VIEW.next(before, event)
        if status.state is AlarmState.NORMAL:
            continue
        if view is AlarmView.SHOWN and status.state is not AlarmState.ACKNOWLEDGED:
            status.told_at = now_ms
        decisions.attention.add(lane.device_id)
        decisions.views.append(
            ViewChange(
                status.alarm_id,
                lane.device_id,
                lane.kind,
                definition,
                event,
                before,
                view,
                status.state,
                status.activated_at,
                now_ms,
                hidden,
                actor,
            )
        )


def expire(lane: DeviceLane, now_ms: int, decisions: Decisions, actor: str) -> None:
    """End every shelf and window whose time is over, and let begin what is due."""
    desk: Desk = lane.desk
    for outage in desk.out_of_service:
        outage.begun = outage.since <= now_ms
    for key, status in desk.alarms.items():
        if status.shelf is not None and now_ms >= status.shelf.until:
            end_shelf(lane, key, status, now_ms, decisions, actor=actor, reason="its time is over")
    for outage in [one for one in desk.out_of_service if one.until is not None and now_ms >= one.until]:
        end_outage(lane, outage, now_ms, decisions, actor=actor, reason="its time is over")


def next_due(desk: Desk) -> Iterable[int]:
    """When a shelf ends, when a window begins or ends."""
    for status in desk.alarms.values():
        if status.shelf is not None:
            yield status.shelf.until
    for outage in desk.out_of_service:
        if not outage.begun:
            yield outage.since
        elif outage.until is not None:
            yield outage.until


def end_shelf(
    lane: DeviceLane, key: str, status: AlarmStatus, now_ms: int, decisions: Decisions, *, actor: str, reason: str
) -> None:
    """Off the shelf; `review` shows what is still true."""
    shelf = status.shelf
    assert shelf is not None
    status.shelf = None
    decisions.attention.add(lane.device_id)
    decisions.hidings.append(shelf_change(lane, key, shelf, ended=(now_ms, actor, reason)))


def end_outage(lane: DeviceLane, outage: Outage, now_ms: int, decisions: Decisions, *, actor: str, reason: str) -> None:
    """Back in service; `review` shows what is still true."""
    lane.desk.out_of_service.remove(outage)
    decisions.attention.add(lane.device_id)
    decisions.hidings.append(outage_change(lane, outage, ended=(now_ms, actor, reason)))


def shelf_change(
    lane: DeviceLane, key: str, shelf: Shelf, ended: tuple[int | None, str, str] = (None, "", "")
) -> HidingChange:
    """For dispatch."""
    return HidingChange(
        shelf.id, lane.device_id, key, "shelf", shelf.since, shelf.until, shelf.actor, shelf.reason, shelf.since, "",
        shelf.one_shot, *ended,
    )  # fmt: skip


def outage_change(
    lane: DeviceLane, outage: Outage, ended: tuple[int | None, str, str] = (None, "", "")
) -> HidingChange:
    """For dispatch."""
    form = "window" if outage.window_id else "out_of_service"
    return HidingChange(
        outage.id, lane.device_id, outage.key, form, outage.since, outage.until, outage.actor, outage.reason,
        outage.created_at, outage.window_id, False, *ended,
    )  # fmt: skip


def clock_set(desk: Desk, now_ms: int) -> None:
    """The wall clock was set: no shelf lasts longer than it was meant to. Windows are times of the wall clock."""
    for outage in desk.out_of_service:
        if not outage.window_id:
            outage.since = min(outage.since, now_ms)
        outage.begun = outage.since <= now_ms
    for status in desk.alarms.values():
        status.told_at = min(status.told_at, now_ms)
        if status.shelf is not None:
            length_ms = status.shelf.until - status.shelf.since
            status.shelf.since = min(status.shelf.since, now_ms)
            status.shelf.until = min(status.shelf.until, now_ms + length_ms)


def shelve_ms_max(priority: Priority) -> int:
    """Longest time on the shelf."""
    return round(SHELVE_S_MAX[priority] * MILLISECONDS_PER_SECOND)
