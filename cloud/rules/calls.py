"""The emergency call at its origin: opened by a press, accepted by a person, ended only where it began."""

from typing import Any, Final

from cloud.model import CallChange, Decisions, DeviceLane, Intent
from cloud.ports import IntentRefusedError
from cloud.rules.desk import CallStatus, Desk
from cloud.synthetic import is_synthetic
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import CALL, CallEvent, CallState
from fleet.kind import CallStep

ESCALATION_STEPS_S: Final = (60.0, 120.0, 180.0)
"""Business seconds from the first page to the second crew, the duty manager, everybody; then the last repeats."""
TEST_CLEARED_WITHIN_S: Final = 30.0
"""A test press that is not cleared in the room so soon is taken for a call for help: people are paged then."""
TEST_MODE_S_MAX: Final = 300.0
TEST_CLOCKS_DIFFER_MS: Final = 2_000

_CALL_EVENTS: Final = {
    CallStep.PRESS: CallEvent.PRESS,
    CallStep.ATTEND: CallEvent.ATTEND,
    CallStep.CLEAR_AT_ORIGIN: CallEvent.CLEAR_AT_ORIGIN,
}


def step_call(
    lane: DeviceLane, step: CallStep, event_id: str, envelope: Any, now_ms: int, decisions: Decisions
) -> None:
    """A press, an arrival or the end at the origin: the only place where a call is opened or cleared.

    `envelope` is the event's own: its time, and its place in the lane, tell what came before what in the room.
    """
    at, place = envelope.occurred_at, (envelope.boot_epoch, envelope.seq)
    desk: Desk = lane.desk
    call = desk.call
    if call is None:
        if step is not CallStep.PRESS:
            return  # its press was before our time; the event itself is stored
        call = desk.call = CallStatus(event_id, CallState.IDLE, at, 0, now_ms, test=_takes_test(desk, at, now_ms))
    elif step is CallStep.PRESS and call.test:
        # Whoever tests presses once; a second press is somebody who needs help.
        call.test, call.escalation, call.escalated_at = False, 0, now_ms
    before_it = place[0] == call.newest_press[0] and place < call.newest_press  # another storage counts for itself
    if step is CallStep.PRESS and not before_it:
        call.newest_press = place
    elif step is CallStep.ATTEND and before_it:
        return  # who came had come before the press that was acted on early: that stands, and so does its page
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
            purpose=_purpose(lane, call),
        )
    )
    if call.state is CallState.CLEARED:
        desk.call = None


def escalate(lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
    """Page the next audience if nobody accepted in time; the first one for a test that was not cleared in time."""
    call: CallStatus | None = lane.desk.call
    if call is None or call.state is not CallState.CALLING or is_synthetic(lane.device_id):
        return
    if now_ms < escalation_due(call):
        return
    if call.test:
        call.test = False
    else:
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
    if call.test:
        return call.escalated_at + round(TEST_CLEARED_WITHIN_S * MILLISECONDS_PER_SECOND)
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
            event_id=intent.id,  # two people may accept within one commit, with a press between them
            received_at=now_ms,
            purpose=_purpose(lane, call),
        )
    )
    return {"state": call.state.value}


def begin_test(lane: DeviceLane, intent: Intent, now_ms: int) -> dict[str, Any]:
    """The next press within `seconds` is a test. Raises IntentRefusedError while a call is open."""
    desk: Desk = lane.desk
    if desk.call is not None:
        raise IntentRefusedError(f"{lane.device_id} has an open call")
    seconds = float(intent.arguments.get("seconds", TEST_MODE_S_MAX))
    if not 0 <= seconds <= TEST_MODE_S_MAX:
        raise IntentRefusedError(f"a test lasts at most {TEST_MODE_S_MAX:.0f} s")
    desk.button.test_from = now_ms
    desk.button.test_until = now_ms + round(seconds * MILLISECONDS_PER_SECOND)
    return {"test_until": desk.button.test_until}


def _takes_test(desk: Desk, at: int, now_ms: int) -> bool:
    """Whether a first press is the expected test. By the room's time as well: an older one that waited is none."""
    button = desk.button
    expected = button.test_from <= now_ms <= button.test_until and at >= button.test_from - TEST_CLOCKS_DIFFER_MS
    button.test_until = 0  # whatever it was: there is one test press, and the next one is somebody who calls
    return expected


def _purpose(lane: DeviceLane, call: CallStatus) -> str:
    if is_synthetic(lane.device_id):
        return "synthetic"
    return "test" if call.test else "help"
