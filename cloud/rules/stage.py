"""Decides, from a device's state and the time, which alarms, calls and work change.

The clock of a decision is the reading's own time where there is one, so data that waited on a device
raises no alarm about the present. Timers (delays, silence, escalation) come back through `on_timer`;
`next_due` says when.
"""

from collections.abc import Mapping
from typing import Any, Final

import devices
from cloud.model import Accepted, Decisions, DeviceLane, Intent, NeedChange
from cloud.ports import IntentRefusedError
from cloud.rules import acts, calls, hiding, identities, links
from cloud.rules.conditions import (
    IDENTITY_TWICE,
    LINK_ALARMS,
    NO_READINGS,
    SILENT,
    Quiet,
    check_parents,
    compile_conditions,
    compile_quiet,
    link_alarms,
)
from cloud.rules.desk import AlarmStatus, Desk, decode_desk, encode_desk
from cloud.rules.links import Limits
from cloud.rules.moves import RULES, identity, move_alarm
from cloud.rules.timed_alarms import timed_alarms
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import Hello
from fleet.incident import ALARM, ALARM_TRUE, AlarmEvent, AlarmState, AlarmView, CallState
from fleet.kind import AlarmDefinition, CallStep, Kind

LATE_MS: Final = 120_000
"""A reading this old waited on its device: what it shows may be long over, and fresher ones are on their way."""
CATCH_UP_MS: Final = 30_000
"""So long they may be on their way before what an old reading shows counts as present."""

EARLY_MAX: Final = 16
"""Presses out of turn that are remembered until their turn; the oldest is forgotten first."""


class _Rulebook:
    """One kind's tables, compiled."""

    def __init__(self, kind: Kind, module: Any, speed: float) -> None:
        self.kind = kind
        self.definitions: tuple[AlarmDefinition, ...] = tuple(module.ALARMS)
        self.by_key = {definition.key: definition for definition in (*self.definitions, *link_alarms(kind))}
        check_parents(self.by_key)
        self.parents_first = tuple(sorted(enumerate(self.definitions), key=lambda pair: self._depth(pair[1].key)))
        self.limits = Limits.of(kind, self.by_key, speed)
        self.sensors = {sensor.alarm_key: sensor for sensor in getattr(module, "SENSORS", ())}
        conditions = [definition.condition for definition in self.definitions]
        self.judge = compile_conditions(conditions, kind.reading)
        self.needs = module.needs
        self.quiet = compile_quiet(conditions, kind.reading, module.needs, watched=bool(timed_alarms(kind)))
        self.call_steps: Mapping[str, CallStep] = module.call_steps()
        self.call_feedback = module.call_feedback

    def _depth(self, key: str) -> int:
        return 1 + max((self._depth(parent) for parent in self.by_key[key].suppressed_by), default=-1)


class Rules:
    """The stage; pure apart from the desks of the lanes it is given."""

    def __init__(self, kinds: Mapping[str, Kind], speed: float = 1.0) -> None:
        """`speed` of business time."""
        self._books = {name: _Rulebook(kind, devices.role(name, "rules"), speed) for name, kind in kinds.items()}

        self.quiet: Mapping[str, Quiet] = {name: book.quiet for name, book in self._books.items()}
        """By kind: `on_reading` need not be called for a reading after which this holds."""

    encode_desk = staticmethod(encode_desk)

    def decode_desk(self, kind: str, text: str) -> Desk:
        """The desk from its row. Its bits are set by name: the table may have changed since it was stored."""
        desk = decode_desk(text)
        true = {key for key, status in desk.alarms.items() if status.condition}
        definitions = self._books[kind].definitions
        desk.mask = sum(1 << index for index, definition in enumerate(definitions) if definition.key in true)
        desk.missed = SILENT in true or NO_READINGS in true
        return desk

    @staticmethod
    def new_desk() -> Desk:
        """Nothing is wrong yet."""
        return Desk()

    def on_reading(self, lane: DeviceLane, at: int, now_ms: int, decisions: Decisions) -> bool:
        """After each reading: the alarms of its kind's table, then what work the state asks for.

        Returns whether a condition of the table changed.
        """
        book = self._books[lane.kind]
        desk: Desk = lane.desk
        state, before = lane.state, desk.mask
        mask = book.judge(state, before)
        if mask != before:
            self._conditions_changed(lane, book, mask, at, now_ms, decisions)
        if desk.missed:
            self._alive(lane, book, now_ms, decisions)
        if desk.needs or book.needs(state, at):
            self._needs(lane, book, at, decisions)
        return mask != before

    def on_event(self, accepted: Accepted, now_ms: int, decisions: Decisions) -> None:
        """After each event: its step of the emergency call, then alarms and work as after a reading."""
        lane = accepted.lane
        step = self._books[lane.kind].call_steps.get(accepted.event.type)
        at = accepted.envelope.occurred_at
        if step is not None:
            calls.step_call(lane, step, accepted.event.event_id, accepted.envelope, now_ms, decisions)
        if accepted.early and lane.desk.call is not None:
            kept = {**lane.desk.early, accepted.event.event_id: lane.desk.call.call_id}
            lane.desk.early = dict(list(kept.items())[-EARLY_MAX:])
        self.on_reading(lane, at, now_ms, decisions)

    def opens_call(self, accepted: Accepted) -> bool:
        """Whether this event is somebody asking for help."""
        return self._books[accepted.lane.kind].call_steps.get(accepted.event.type) is CallStep.PRESS

    def on_repeat(self, accepted: Accepted, now_ms: int, decisions: Decisions) -> None:
        """The turn of a press that was acted on early: if its call has ended since, it asks for help again.

        That end came before the press, and may have withdrawn its page; another call says nothing of this press.
        """
        desk: Desk = accepted.lane.desk
        event_id = accepted.event.event_id
        if accepted.early or event_id not in desk.early:
            return
        call_id = desk.early[event_id]
        desk.early = {other: its_call for other, its_call in desk.early.items() if other != event_id}
        if desk.call is None or desk.call.call_id != call_id:
            # An id of its own: under the press's own id this would look like a page that was sent already.
            again = identity("again", event_id)
            calls.step_call(accepted.lane, CallStep.PRESS, again, accepted.envelope, now_ms, decisions)

    def on_heard(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """Any other sign of life."""
        if lane.desk.missed:
            self._alive(lane, self._books[lane.kind], now_ms, decisions)

    def on_hello(self, lane: DeviceLane, hello: Hello, now_ms: int, decisions: Decisions) -> identities.Answer:
        """Whether it may be answered, and whether it shows one identity in two places."""
        definition = self._books[lane.kind].by_key[IDENTITY_TWICE]
        return identities.on_hello(lane, hello, definition, now_ms, decisions)

    def on_dropped(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """Its link was lost."""
        book = self._books[lane.kind]
        links.on_dropped(lane, book.limits, now_ms, decisions)
        hiding.review(lane, book.by_key, now_ms, decisions)

    def on_timer(self, lane: DeviceLane, now_ms: int, listening_since_ms: int | None, decisions: Decisions) -> None:
        """A due time was reached. `listening_since_ms` is None while we ourselves hear nobody."""
        if lane.retired:
            return
        book = self._books[lane.kind]
        links.on_timer(lane, book.limits, now_ms, listening_since_ms, decisions)
        if not links.holds(lane.desk, SILENT):
            for key, status in lane.desk.alarms.items():
                self._settle(lane, book.by_key.get(key), status, now_ms, now_ms, decisions)
        if lane.desk.alarms or lane.desk.out_of_service:
            hiding.expire(lane, now_ms, decisions, RULES)
            hiding.review(lane, book.by_key, now_ms, decisions)
            self._tell_again(lane, book, now_ms, decisions)
        self._needs(lane, book, now_ms, decisions)
        calls.escalate(lane, now_ms, decisions)

    def next_due(self, lane: DeviceLane, listening_since_ms: int | None) -> int | None:
        """When this lane wants `on_timer`, business ms; None without anything pending."""
        if lane.retired:
            return None
        book = self._books[lane.kind]
        desk: Desk = lane.desk
        due = list(links.next_due(lane, book.limits, listening_since_ms))
        if not links.holds(desk, SILENT):  # a silent device's old readings decide nothing
            for key, status in desk.alarms.items():
                pending = self._pending_until(book.by_key.get(key), status)
                if pending is not None:
                    due.append(pending)
        due += hiding.next_due(desk)
        for key, status in desk.alarms.items():
            again = self._again_at(book.by_key.get(key), status)
            if again is not None:
                due.append(again)
        if desk.call is not None and desk.call.state is CallState.CALLING:
            due.append(calls.escalation_due(desk.call))
        return min(due) if due else None

    @staticmethod
    def clock_set(lane: DeviceLane, now_ms: int) -> None:
        """The wall clock was set: no wait may be longer than it was, so nothing remembered lies in the future."""
        desk: Desk = lane.desk
        lane.last_heard_at = min(lane.last_heard_at, now_ms)
        lane.last_reading_at = min(lane.last_reading_at, now_ms)
        lane.data_at = min(lane.data_at, now_ms)
        lane.presence.dropped_at = min(lane.presence.dropped_at, now_ms)
        for status in desk.alarms.values():
            status.since = min(status.since, now_ms + CATCH_UP_MS)
        hiding.clock_set(desk, now_ms)
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
        for index, definition in book.parents_first:  # so that what follows from another alarm is not told before it
            if not changed & (1 << index):
                continue
            status = desk.alarms.setdefault(definition.key, AlarmStatus())
            status.condition = bool(mask & (1 << index))
            status.since = at if now_ms - at <= LATE_MS else now_ms + CATCH_UP_MS
            if definition.key in book.sensors:
                links.sensor_changed(lane, book.sensors[definition.key], lost=status.condition)
            self._settle(lane, definition, status, at, now_ms, decisions)
        hiding.review(lane, book.by_key, now_ms, decisions)

    @staticmethod
    def _alive(lane: DeviceLane, book: _Rulebook, now_ms: int, decisions: Decisions) -> None:
        """What was hidden behind its silence is shown again, with or without a new reading."""
        links.on_alive(lane, book.limits, now_ms, decisions)
        hiding.review(lane, book.by_key, now_ms, decisions)

    @staticmethod
    def _settle(
        lane: DeviceLane,
        definition: AlarmDefinition | None,
        status: AlarmStatus,
        at: int,
        now_ms: int,
        decisions: Decisions,
    ) -> None:
        """Activate or return once the condition has held for its delay."""
        if definition is None or definition.key in LINK_ALARMS:
            return
        delay_s = definition.on_delay_s if status.condition else definition.off_delay_s
        if at - status.since < delay_s * MILLISECONDS_PER_SECOND:
            return
        event = AlarmEvent.ACTIVATE if status.condition else AlarmEvent.RETURN
        if ALARM.allows(status.state, event):
            move_alarm(lane, definition, status, event, at, decisions, received_at=now_ms)

    def _tell_again(self, lane: DeviceLane, book: _Rulebook, now_ms: int, decisions: Decisions) -> None:
        """Re-alarm what is true for so long after people were told of it, or after somebody acknowledged it."""
        for key, status in lane.desk.alarms.items():
            again = self._again_at(book.by_key.get(key), status)
            if again is not None and now_ms >= again:
                move_alarm(lane, book.by_key[key], status, AlarmEvent.REALARM, now_ms, decisions, RULES)

    @staticmethod
    def _again_at(definition: AlarmDefinition | None, status: AlarmStatus) -> int | None:
        if definition is None or definition.realarm_s is None or not status.told_at:
            return None
        if status.state not in ALARM_TRUE or status.view is not AlarmView.SHOWN:
            return None
        return status.told_at + round(definition.realarm_s * MILLISECONDS_PER_SECOND)

    @staticmethod
    def _pending_until(definition: AlarmDefinition | None, status: AlarmStatus) -> int | None:
        if definition is None or definition.key in LINK_ALARMS:
            return None
        event = AlarmEvent.ACTIVATE if status.condition else AlarmEvent.RETURN
        if not ALARM.allows(status.state, event):
            return None
        delay_s = definition.on_delay_s if status.condition else definition.off_delay_s
        return status.since + round(delay_s * MILLISECONDS_PER_SECOND)

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
                answer = calls.acknowledge_call(lane, intent, now_ms, decisions)
                feedback = self._books[lane.kind].call_feedback(lane.state, acknowledged=True)
                if feedback is not None:
                    decisions.feedback.append((lane.device_id, feedback))
                return answer
            case (
                "acknowledge_alarm"
                | "shelve_alarm"
                | "unshelve_alarm"
                | "out_of_service"
                | "in_service"
                | "reset_latch" as name
            ):
                definitions = self._books[lane.kind].by_key
                answer = acts.ACTS[name](lane, definitions, intent, now_ms, decisions)
                hiding.review(lane, definitions, now_ms, decisions, intent.actor)
                return answer
            case "retire":
                if lane.desk.call is not None:
                    raise IntentRefusedError(f"{lane.device_id} has an open call; it can only be cleared at the origin")
                self._close(lane, intent.actor, now_ms, decisions)
                lane.retired = True
                return {"retired": True}
            case "revoke":
                lane.revoked = True
                if lane.online:
                    lane.online, lane.link_changed_at = False, now_ms
                return {"revoked": True}
            case "reinstate":
                lane.revoked = False
                return {"revoked": False}
            case _:
                raise IntentRefusedError(f"unknown act {intent.name!r}")

    def _close(self, lane: DeviceLane, actor: str, now_ms: int, decisions: Decisions) -> None:
        """A device that is out of service has no alarm that could return by itself, and wants no work."""
        desk: Desk = lane.desk
        book = self._books[lane.kind]
        for key, status in desk.alarms.items():
            status.condition, status.since = False, now_ms
            if key in book.by_key and ALARM.allows(status.state, AlarmEvent.RETURN):
                move_alarm(lane, book.by_key[key], status, AlarmEvent.RETURN, now_ms, decisions)
            for event in (AlarmEvent.ACKNOWLEDGE, AlarmEvent.RESET):  # nobody will inspect it on site any more
                latched = status.state in {AlarmState.LATCHED_UNACKNOWLEDGED, AlarmState.LATCHED_ACKNOWLEDGED}
                if latched and key in book.by_key and ALARM.allows(status.state, event):
                    move_alarm(lane, book.by_key[key], status, event, now_ms, decisions, actor, "retired")
            if status.shelf is not None:
                hiding.end_shelf(lane, key, status, now_ms, decisions, actor=actor, reason="retired")
        for outage in list(desk.out_of_service):
            hiding.end_outage(lane, outage, now_ms, decisions, actor=actor, reason="retired")
        hiding.review(lane, book.by_key, now_ms, decisions, actor)
        desk.mask = 0
        for cause in desk.needs:
            decisions.needs.append(NeedChange(lane.device_id, lane.kind, cause, None, wanted=False, at=now_ms))
        desk.needs.clear()
