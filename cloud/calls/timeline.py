"""One call as a line of moments: what the room did, who did what, and each attempt to tell somebody."""

from dataclasses import dataclass
from typing import Final

from cloud.calls.schemas import CallAnswer

STEP: Final = "step"
ATTEMPT: Final = "attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """`known_after_s`: how much later we knew than it happened."""

    kind: str
    name: str
    at: int
    seconds: float
    known_after_s: float = 0.0
    who: str = ""
    channel: str = ""
    outcome: str = ""
    detail: str = ""
    duration_ms: int = 0


def timeline(call: CallAnswer) -> list[Moment]:
    """In the order in which it happened; steps before attempts of the same moment."""
    moments = [
        Moment(
            kind=STEP, name=step.step, at=step.at, seconds=step.seconds_after_press,
            known_after_s=max(0.0, (step.received_at - step.at) / 1000), who=step.actor_name or step.actor,
            detail=step.event_id.partition(":")[2] if step.step == "escalate" else "",
        )
        for step in call.steps
    ]  # fmt: skip
    moments += [
        Moment(
            kind=ATTEMPT, name=one.channel, at=one.at, seconds=one.seconds_after_press, who=one.recipient_name or "",
            channel=one.channel, outcome=one.outcome, detail=one.error, duration_ms=one.duration_ms,
        )
        for one in call.attempts
    ]  # fmt: skip
    return sorted(moments, key=lambda moment: (moment.at, moment.kind == ATTEMPT))
