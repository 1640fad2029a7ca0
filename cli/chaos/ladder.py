"""Whether calls and their escalations went as they must: no step missed or taken twice, none after somebody accepted.

Judged by the transitions in the order of their commits, replayed through the call's own lifecycle, and by the rooms'
own log: a call that is cleared was cleared there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.chaos.oracle import Finding
from cloud.rules.calls import ESCALATION_STEPS_S
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import CALL, CallEvent, CallState

ESCALATE: Final = "escalate"
OVERDUE_S_MAX: Final = 30.0
"""Business seconds after which a step that is due counts as missed, once everything works."""
EARLY_MS_MAX: Final = 1_500


@dataclass(frozen=True, slots=True)
class Step:
    """One row of `call_transition`, in the order of the commits."""

    call_id: str
    step: str
    before: str
    after: str
    received_at: int
    event_id: str


def judge(
    steps: Sequence[Step], states: Mapping[str, str], cleared_in_rooms: Collection[str], *, clocks_jumped: bool
) -> Finding:
    """`states`: call id → state of its row; `cleared_in_rooms`: event ids of the clear keys that were really turned."""
    by_call: dict[str, list[Step]] = {}
    for step in steps:
        by_call.setdefault(step.call_id, []).append(step)
    finding = Finding(len(by_call))
    for call_id, mine in by_call.items():
        _judge_call(call_id, mine, finding, clocks_jumped=clocks_jumped)
        last = mine[-1].after
        if states.get(call_id) != last:
            finding.lost.append(f"call {call_id}: its row is {states.get(call_id)}, its last step led to {last}")
        for step in mine:
            if step.after == CallState.CLEARED.value and step.event_id not in cleared_in_rooms:
                finding.lost.append(f"call {call_id}: cleared by {step.step}, and nobody turned the key in the room")
    finding.lost += [f"call {call_id}: a row without any step" for call_id in states if call_id not in by_call]
    return finding


def _judge_call(call_id: str, mine: Sequence[Step], finding: Finding, *, clocks_jumped: bool) -> None:
    state, level, since_ms = CallState.IDLE, 0, 0
    for step in mine:
        if step.before != state.value:
            finding.lost.append(f"call {call_id}: {step.step} from {step.before}, but it was {state.value}")
        if step.step != ESCALATE:
            event = CallEvent(step.step)
            if not CALL.allows(state, event):
                finding.doubled.append(f"call {call_id}: {step.step} while {state.value}")
                continue
            before, state = state, CALL.next(state, event)
            if event is CallEvent.PRESS and before is not CallState.CALLING:
                level, since_ms = 0, step.received_at  # the ladder begins anew
            continue
        reached = int(step.event_id.partition(":")[2])
        if state is not CallState.CALLING:
            finding.doubled.append(f"call {call_id}: step {reached} of its ladder while it was {state.value}")
        if reached <= level:
            finding.doubled.append(f"call {call_id}: step {reached} of its ladder came again")
        elif reached > level + 1:
            finding.lost.append(f"call {call_id}: from step {level} to {reached} of its ladder")
        elif not clocks_jumped and step.received_at - since_ms < wait_ms(level) - EARLY_MS_MAX:
            finding.doubled.append(
                f"call {call_id}: step {reached} came {step.received_at - since_ms} ms after the last"
            )
        level, since_ms = reached, step.received_at


def overdue(steps: Sequence[Step], now_ms: int) -> list[str]:
    """Calls whose next step should have been taken by now."""
    latest: dict[str, tuple[CallState, int, int]] = {}
    for step in steps:
        state, level, since_ms = latest.get(step.call_id, (CallState.IDLE, 0, 0))
        if step.step == ESCALATE:
            level, since_ms = int(step.event_id.partition(":")[2]), step.received_at
        elif step.step == CallEvent.PRESS.value and state is not CallState.CALLING:
            level, since_ms = 0, step.received_at
        latest[step.call_id] = CallState(step.after), level, since_ms
    return [
        call_id
        for call_id, (state, level, since_ms) in latest.items()
        if state is CallState.CALLING and now_ms > since_ms + wait_ms(level) + OVERDUE_S_MAX * MILLISECONDS_PER_SECOND
    ]


def wait_ms(level: int) -> int:
    """Business ms from step `level` of the ladder (0: the press) to the next."""
    moments = (0.0, *ESCALATION_STEPS_S)
    wait_s = moments[level + 1] - moments[level] if level + 1 < len(moments) else ESCALATION_STEPS_S[0]
    return round(wait_s * MILLISECONDS_PER_SECOND)


def escalations(steps: Sequence[Step]) -> dict[str, int]:
    """How many steps were taken by level, for the report; what nobody reached was not tested."""
    counts: dict[str, int] = {}
    for step in steps:
        if step.step == ESCALATE:
            counts[step.event_id.partition(":")[2]] = counts.get(step.event_id.partition(":")[2], 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: int(pair[0])))


def steps_of(rows: Sequence[Any]) -> list[Step]:
    """From rows of `call_transition`."""
    return [Step(row.call_id, row.step, row.before, row.after, row.received_at, row.event_id) for row in rows]
