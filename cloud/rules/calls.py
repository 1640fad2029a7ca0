"""The emergency call at its origin: opened by a press, accepted by a person, ended only where it began."""

from typing import Any, Final

from cloud.model import CallChange, Decisions, DeviceLane, Intent
from cloud.ports import IntentRefusedError
from cloud.rules.desk import CallStatus, Desk
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import CALL, CallEvent, CallState
from fleet.kind import CallStep

ESCALATION_STEPS_S: Final = (60.0, 120.0, 180.0)
"""Business seconds from the first page to the second crew, the duty manager, everybody; then the last repeats."""

_CALL_EVENTS: Final = {
    CallStep.PRESS: CallEvent.PRESS,
    CallStep.ATTEND: CallEvent.ATTEND,
    CallStep.CLEAR_AT_ORIGIN: CallEvent.CLEAR_AT_ORIGIN,
}


def step_call(lane: DeviceLane, step: CallStep, event_id: str, at: int, now_ms: int, decisions: Decisions) -> None:
    """A press, an arrival or the end at the origin: the only place where a call is opened or cleared."""
    desk: Desk = lane.desk
    call = desk.call
    if call is None:
        if step is not CallStep.PRESS:
            return  # its press was before our time; the event itself is stored
        call = desk.call = CallStatus(event_id, CallState.IDLE, at, 0, now_ms)
    event = _CALL_EVENTS[step]
    if not CALL.allows(call.state, event):
        return  # attended twice: the event is stored, the call does not change
    before, call.state = call.state, CALL.next(call.state, event)
    decisions.attention.add(lane.device_id)
    if step is CallStep.PRESS and before is not CallState.CALLING:
        # Opened again after somebody had accepted: the ladder starts anew. While it is calling, a further
        # press pages at once but must not push the next step back.
        call.escalation, call.escalated_at = 0, now_ms
    decisions.calls.append(
        CallChange(
            call.call_id,
            lane.device_id,
            lane.kind,
            before,
            call.state,
            at,
            step=step,
            event_id=event_id,
            escalation=call.escalation if step is CallStep.PRESS else None,
            received_at=now_ms,
        )
    )
    if call.state is CallState.CLEARED:
        desk.call = None


def escalate(lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
    """Page the next audience if nobody accepted in time."""
    call: CallStatus | None = lane.desk.call
    if call is None or call.state is not CallState.CALLING or now_ms < escalation_due(call):
        return
    call.escalation += 1
    call.escalated_at = now_ms  # after an outage exactly one step follows, not all that were missed
    decisions.calls.append(
        CallChange(
            call.call_id,
            lane.device_id,
            lane.kind,
            call.state,
            call.state,
            now_ms,
            escalation=call.escalation,
            received_at=now_ms,
        )
    )


def escalation_due(call: CallStatus) -> int:
    """When the next person is paged unless somebody accepts before, business ms."""
    step = ESCALATION_STEPS_S[min(call.escalation, len(ESCALATION_STEPS_S) - 1)]
    previous = ESCALATION_STEPS_S[call.escalation - 1] if 0 < call.escalation < len(ESCALATION_STEPS_S) else 0.0
    wait = step - previous if call.escalation < len(ESCALATION_STEPS_S) else ESCALATION_STEPS_S[0]
    return call.escalated_at + round(wait * MILLISECONDS_PER_SECOND)


def acknowledge_call(lane: DeviceLane, intent: Intent, now_ms: int, decisions: Decisions) -> dict[str, Any]:
    """A named person accepts the call. Raises IntentRefusedError if it is not open or accepted already."""
    call: CallStatus | None = lane.desk.call
    if call is None or call.call_id != intent.arguments.get("call_id"):
        raise IntentRefusedError("this call is not open any more")
    if not CALL.allows(call.state, CallEvent.ACKNOWLEDGE):
        raise IntentRefusedError(f"this call is already {call.state.value}")
    before, call.state = call.state, CALL.next(call.state, CallEvent.ACKNOWLEDGE)
    decisions.calls.append(
        CallChange(
            call.call_id,
            lane.device_id,
            lane.kind,
            before,
            call.state,
            now_ms,
            actor=intent.actor,
            received_at=now_ms,
        )
    )
    return {"state": call.state.value}
