"""What one round of the pipeline works on, from the messages it took to what it will tell people and devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.ingest.intake import Intake
from cloud.model import Decisions, DeviceLane, Inbound, Intent
from fleet.credentials import CertificateRequest
from fleet.envelope import Hello
from fleet.messages import Reply


@dataclass(slots=True)
class Batch:
    """What one round is about to make durable."""

    messages: Sequence[Inbound]
    now_ms: int
    intake: Intake
    decisions: Decisions = field(default_factory=Decisions)
    greeted: list[tuple[DeviceLane, Hello]] = field(default_factory=list)
    """Who said hello, and how."""
    renewed: list[DeviceLane] = field(default_factory=list)
    """Who was granted a new storage generation."""
    retired: list[DeviceLane] = field(default_factory=list)
    linked: list[DeviceLane] = field(default_factory=list)
    """Whose link went up or down."""
    replies: list[Reply] = field(default_factory=list)
    proven: list[tuple[str, str]] = field(default_factory=list)
    """(device, serial of the certificate with which it said hello)."""
    requests: list[CertificateRequest] = field(default_factory=list)
    """Who wants its certificate renewed."""
    answers: list[tuple[Intent, str | None, str | None]] = field(default_factory=list)
    """(act of a person, JSON answer, refusal)."""

    @property
    def needs_commit(self) -> bool:
        """Whether anything in it may not wait for the twins' slower beat."""
        return bool(
            self.intake.events
            or self.intake.gaps
            or self.intake.quarantined
            or self.decisions
            or self.intake.heard
            or self.answers
        )
