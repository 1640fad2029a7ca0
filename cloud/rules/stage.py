"""Decides, from a device's state and the time, which alarms, calls and work change.

The clock of a decision is the reading's own time where there is one, so data that waited on a device
raises no alarm about the present. Timers (delays, silence, escalation) come back through `on_timer`;
`next_due` says when.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import devices
from cloud.model import Accepted, AlarmChange, CallChange, Decisions, DeviceLane, Intent, NeedChange
from cloud.ports import IntentRefusedError
from cloud.rules import calls
from cloud.rules.conditions import SILENT, compile_conditions, silence_alarm
from cloud.rules.desk import AlarmStatus, Desk, decode_desk, encode_desk
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import ALARM, AlarmEvent, AlarmState, CallState
from fleet.kind import AlarmDefinition, CallStep, Kind

LATE_MS: Final = 120_000
"""A reading this old waited on its device: what it shows may be long over, and fresher ones are on their way."""
CATCH_UP_MS: Final = 30_000
"""So long they may be on their way before what an old reading shows counts as present."""

EARLY_MAX: Final = 16
"""Presses out of turn that are remembered until their turn; the oldest is forgotten first."""
NEVER_HEARD_AFTER_S: Final = 600.0
"""Business seconds of listening after which a device that was enrolled and never spoke counts as silent."""


class _Rulebook:
    """One kind's tables, compiled."""

    def __init__(self, kind: Kind, module: Any) -> None:
        self.kind = kind
        self.silent_after_ms = round(kind.silent_after_s * MILLISECONDS_PER_SECOND)
        self.definitions: tuple[AlarmDefinition, ...] = tuple(module.ALARMS)
        self.by_key = {definition.key: definition for definition in (*self.definitions, silence_alarm(kind))}
        self.judge = compile_conditions([definition.condition for definition in self.definitions], kind.reading)
        self.needs = module.needs
        self.call_steps: Mapping[str, CallStep] = module.call_steps()
        self.call_feedback = module.call_feedback


class Rules:
    """The stage; pure apart from the desks of the lanes it is given."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._books = {name: _Rulebook(kind, devices.role(name, "rules")) for name, kind in kinds.items()}

    encode_desk = staticmethod(encode_desk)

    def decode_desk(self, kind: str, text: str) -> Desk:
        """The desk from its row. Its bits are set by name: the table may have changed since it was stored."""
        desk = decode_desk(text)
        true = {key for key, status in desk.alarms.items() if status.condition}
        definitions = self._books[kind].definitions
        desk.mask = sum(1 << index for index, definition in enumerate(definitions) if definition.key in true)
        return desk

    @staticmethod
    def new_desk() -> Desk:
        """Nothing is wrong yet."""
        return Desk()

    def feedback(self, change: CallChange) -> Any:
        """Command that shows the caller how far help is, or None."""
        if change.after is CallState.ACKNOWLEDGED and change.before is CallState.CALLING:
            return self._books[change.kind].call_feedback(acknowledged=True)
        return None

    def on_reading(self, lane: DeviceLane, at: int, now_ms: int, decisions: Decisions) -> None:
        """After each reading: the alarms of its kind's table, then what work the state asks for."""
        book = self._books[lane.kind]
        desk: Desk = lane.desk
        state, before = lane.state, desk.mask
        mask = book.judge(state, before)
        if mask != before:
            self._conditions_changed(lane, book, mask, at, now_ms, decisions)
        if SILENT in desk.alarms:
            self._set_silent(lane, book, now_ms, decisions, silent=False)
        if desk.needs or book.needs(state, at):
            self._needs(lane, book, at, decisions)

    def on_event(self, accepted: Accepted, now_ms: int, decisions: Decisions) -> None:
        """After each event: its step of the emergency call, then alarms and work as after a reading."""
        lane = accepted.lane
        step = self._books[lane.kind].call_steps.get(accepted.event.type)
        at = accepted.envelope.occurred_at
        if step is not None:
            calls.step_call(lane, step, accepted.event.event_id, at, now_ms, decisions)
        if accepted.early:
            lane.desk.early = [*lane.desk.early, accepted.event.event_id][-EARLY_MAX:]
        self.on_reading(lane, at, now_ms, decisions)

    def opens_call(self, accepted: Accepted) -> bool:
        """Whether this event is somebody asking for help."""
        return self._books[accepted.lane.kind].call_steps.get(accepted.event.type) is CallStep.PRESS

    def on_repeat(self, accepted: Accepted, now_ms: int, decisions: Decisions) -> None:
        """The turn of a press that was acted on early: if a call's end came between, it asks for help again."""
        desk: Desk = accepted.lane.desk
        event_id = accepted.event.event_id
        if accepted.early or event_id not in desk.early:
            return
        desk.early = [other for other in desk.early if other != event_id]
        if desk.call is None:
            # An id of its own: under the press's own id this would look like a page that was sent already.
            again = _identity("again", event_id)
            calls.step_call(accepted.lane, CallStep.PRESS, again, accepted.envelope.occurred_at, now_ms, decisions)

    def on_heard(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """Any other sign of life."""
        if SILENT in lane.desk.alarms:
            self._set_silent(lane, self._books[lane.kind], now_ms, decisions, silent=False)

    def on_timer(self, lane: DeviceLane, now_ms: int, listening_since_ms: int | None, decisions: Decisions) -> None:
        """A due time was reached. `listening_since_ms` is None while we ourselves hear nobody."""
        if lane.retired:
            return
        book = self._books[lane.kind]
        if self._is_silent(lane, book, now_ms, listening_since_ms):
            self._set_silent(lane, book, now_ms, decisions, silent=True)
        if not self._silence_known(lane.desk):
            for key, status in lane.desk.alarms.items():
                self._settle(lane, book.by_key.get(key), status, now_ms, decisions)
        self._needs(lane, book, now_ms, decisions)
        calls.escalate(lane, now_ms, decisions)

    def next_due(self, lane: DeviceLane, listening_since_ms: int | None) -> int | None:
        """When this lane wants `on_timer`, business ms; None without anything pending."""
        if lane.retired:
            return None
        book = self._books[lane.kind]
        desk: Desk = lane.desk
        due: list[int] = []
        if not self._silence_known(desk):  # a silent device's old readings decide nothing
            if listening_since_ms is not None:
                due.append(_silent_at(lane, book, listening_since_ms))
            for key, status in desk.alarms.items():
                pending = self._pending_until(book.by_key.get(key), status)
                if pending is not None:
                    due.append(pending)
        if desk.call is not None and desk.call.state is CallState.CALLING:
            due.append(calls.escalation_due(desk.call))
        return min(due) if due else None

    @staticmethod
    def clock_set(lane: DeviceLane, now_ms: int) -> None:
        """The wall clock was set: no wait may be longer than it was, so nothing remembered lies in the future."""
        desk: Desk = lane.desk
        lane.last_heard_at = min(lane.last_heard_at, now_ms)
        lane.last_reading_at = min(lane.last_reading_at, now_ms)
        for status in desk.alarms.values():
            status.since = min(status.since, now_ms + CATCH_UP_MS)
        if desk.call is not None:
            desk.call.escalated_at = min(desk.call.escalated_at, now_ms)

    # --- alarms ------------------------------------------------------------------------------------------------

    def _conditions_changed(
        self, lane: DeviceLane, book: _Rulebook, mask: int, at: int, now_ms: int, decisions: Decisions
    ) -> None:
        desk: Desk = lane.desk
        changed = desk.mask ^ mask
        desk.mask = mask
        decisions.attention.add(lane.device_id)
        for index, definition in enumerate(book.definitions):
            if not changed & (1 << index):
                continue
            status = desk.alarms.setdefault(definition.key, AlarmStatus())
            status.condition = bool(mask & (1 << index))
            status.since = at if now_ms - at <= LATE_MS else now_ms + CATCH_UP_MS
            self._settle(lane, definition, status, at, decisions)

    def _settle(
        self, lane: DeviceLane, definition: AlarmDefinition | None, status: AlarmStatus, at: int, decisions: Decisions
    ) -> None:
        """Activate or return once the condition has held for its delay."""
        if definition is None or definition.key == SILENT:
            return
        delay_s = definition.on_delay_s if status.condition else definition.off_delay_s
        if at - status.since < delay_s * MILLISECONDS_PER_SECOND:
            return
        event = AlarmEvent.ACTIVATE if status.condition else AlarmEvent.RETURN
        if ALARM.allows(status.state, event):
            self._move_alarm(lane, definition, status, event, at, decisions)

    def _move_alarm(
        self,
        lane: DeviceLane,
        definition: AlarmDefinition,
        status: AlarmStatus,
        event: AlarmEvent,
        at: int,
        decisions: Decisions,
        actor: str = "",
        note: str = "",
    ) -> None:
        before = status.state
        status.state = ALARM.next(before, event)
        if before is AlarmState.NORMAL:
            status.alarm_id = _identity("alarm", lane.device_id, definition.key, str(at))
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

    @staticmethod
    def _pending_until(definition: AlarmDefinition | None, status: AlarmStatus) -> int | None:
        if definition is None or definition.key == SILENT:
            return None
        event = AlarmEvent.ACTIVATE if status.condition else AlarmEvent.RETURN
        if not ALARM.allows(status.state, event):
            return None
        delay_s = definition.on_delay_s if status.condition else definition.off_delay_s
        return status.since + round(delay_s * MILLISECONDS_PER_SECOND)

    # --- silence -----------------------------------------------------------------------------------------------

    @staticmethod
    def _silence_known(desk: Desk) -> bool:
        status = desk.alarms.get(SILENT)
        return status is not None and status.condition

    @staticmethod
    def _is_silent(lane: DeviceLane, book: _Rulebook, now_ms: int, listening_since_ms: int | None) -> bool:
        return listening_since_ms is not None and now_ms >= _silent_at(lane, book, listening_since_ms)

    def _set_silent(
        self, lane: DeviceLane, book: _Rulebook, now_ms: int, decisions: Decisions, *, silent: bool
    ) -> None:
        desk: Desk = lane.desk
        status = desk.alarms.setdefault(SILENT, AlarmStatus())
        if status.condition == silent:
            return
        status.condition, status.since = silent, now_ms
        decisions.attention.add(lane.device_id)
        event = AlarmEvent.ACTIVATE if silent else AlarmEvent.RETURN
        if ALARM.allows(status.state, event):
            self._move_alarm(lane, book.by_key[SILENT], status, event, now_ms, decisions)

    # --- work --------------------------------------------------------------------------------------------------

    @staticmethod
    def _needs(lane: DeviceLane, book: _Rulebook, at: int, decisions: Decisions) -> None:
        desk: Desk = lane.desk
        wanted = book.needs(lane.state, at)
        if not wanted and not desk.needs:
            return
        by_cause = {need.cause: need for need in wanted}
        for cause, need in by_cause.items():
            if cause not in desk.needs:
                desk.needs[cause] = at
                decisions.needs.append(NeedChange(lane.device_id, lane.kind, need.cause, need, wanted=True, at=at))
        for cause in [cause for cause in desk.needs if cause not in by_cause]:
            del desk.needs[cause]
            decisions.needs.append(NeedChange(lane.device_id, lane.kind, cause, None, wanted=False, at=at))

    # --- people ------------------------------------------------------------------------------------------------

    def on_intent(self, lane: DeviceLane, intent: Intent, now_ms: int, decisions: Decisions) -> dict[str, Any]:
        """What a person did to this device's incidents. Raises IntentRefusedError; nothing is changed then."""
        match intent.name:
            case "acknowledge_call":
                return calls.acknowledge_call(lane, intent, now_ms, decisions)
            case "acknowledge_alarm":
                return self._acknowledge_alarm(lane, intent, now_ms, decisions)
            case "retire":
                if lane.desk.call is not None:
                    raise IntentRefusedError(f"{lane.device_id} has an open call; it can only be cleared at the origin")
                self._close(lane, now_ms, decisions)
                lane.retired = True
                return {"retired": True}
            case _:
                raise IntentRefusedError(f"unknown act {intent.name!r}")

    def _close(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """A device that is out of service has no alarm that could return by itself, and wants no work."""
        desk: Desk = lane.desk
        book = self._books[lane.kind]
        for key, status in desk.alarms.items():
            status.condition, status.since = False, now_ms
            if key in book.by_key and ALARM.allows(status.state, AlarmEvent.RETURN):
                self._move_alarm(lane, book.by_key[key], status, AlarmEvent.RETURN, now_ms, decisions)
        desk.mask = 0
        for cause in desk.needs:
            decisions.needs.append(NeedChange(lane.device_id, lane.kind, cause, None, wanted=False, at=now_ms))
        desk.needs.clear()

    def _acknowledge_alarm(self, lane: DeviceLane, intent: Intent, now_ms: int, decisions: Decisions) -> dict[str, Any]:
        book = self._books[lane.kind]
        for key, status in lane.desk.alarms.items():
            if status.alarm_id != intent.arguments.get("alarm_id") or key not in book.by_key:
                continue
            if not ALARM.allows(status.state, AlarmEvent.ACKNOWLEDGE):
                raise IntentRefusedError(f"this alarm is {status.state.value}")
            self._move_alarm(
                lane,
                book.by_key[key],
                status,
                AlarmEvent.ACKNOWLEDGE,
                now_ms,
                decisions,
                actor=intent.actor,
                note=str(intent.arguments.get("note", "")),
            )
            return {"state": status.state.value}
        raise IntentRefusedError("this alarm is over")


def _silent_at(lane: DeviceLane, book: _Rulebook, listening_since_ms: int) -> int:
    if not lane.last_heard_at:
        return listening_since_ms + max(book.silent_after_ms, round(NEVER_HEARD_AFTER_S * MILLISECONDS_PER_SECOND))
    return max(lane.last_heard_at, listening_since_ms) + book.silent_after_ms


def _identity(*parts: str) -> str:
    """A stable id, so that a replayed decision names the same row."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
