"""Every bound and rhythm of the agent in one place, in real seconds unless the name says otherwise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fleet.envelope import Lane


def _per_lane(emergency: float, event: float, telemetry: float) -> Mapping[Lane, float]:
    return MappingProxyType({Lane.EMERGENCY: emergency, Lane.EVENT: event, Lane.TELEMETRY: telemetry})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What production uses; tests pass shorter ones."""

    window_messages_max: int = 16
    """Messages of one lane that may wait for their application acknowledgement at the same time."""
    emergencies_under_way_max: int = 4_096
    """Emergencies may all be under way at once, as many as the journal keeps."""
    resend_first_s: Mapping[Lane, float] = field(default_factory=lambda: _per_lane(1.0, 2.0, 5.0))
    """Silence after which the oldest unacknowledged message goes out again; doubles up to `resend_most_s`."""
    urgent_resends: int = 3
    """So many times emergencies are sent again quickly; then their pauses double, too, and are spread widely: a cloud
    that is too slow is not made slower by all of them at once. Each welcome lets them out of a long pause."""
    resend_most_s: Mapping[Lane, float] = field(default_factory=lambda: _per_lane(8.0, 15.0, 30.0))
    stuck_strikes_max: int = 8
    """Resends of one message after which the cloud answered a hello and still did not take it …"""
    stuck_s: Mapping[Lane, float] = field(default_factory=lambda: _per_lane(math.inf, 600.0, 600.0))
    """… and for how long, before the message is set aside so that the lane goes on; never done to an emergency."""
    go_back_pause_s: float = 0.5
    """A lane goes back at most once in this time, however often the cloud reports the gap."""

    hello_retry_s: float = 3.0
    hello_retry_most_s: float = 10.0
    hello_renew_s: float = 21_600.0
    """On a connection that stays, trusted time is asked for anew this often."""
    first_welcome_s: float = 1.0
    """After a start emergencies wait so long for the cloud's word on this storage; then they go out without it."""
    welcome_age_s_max: float = 10.0
    """A later welcome proves no time: whoever delayed it could make old commands look fresh."""

    reconnect_jitter_s: float = 18.0
    """Turn of `edge.reconnect`: 390 devices then stay at 50 connects a second or fewer, however long the broker was
    away, and all are back within 20 s."""
    refused_most_s: float = 300.0
    """Longest pause between attempts of a device whose certificate is refused: only a person can mend that."""
    reconnect_emergency_s: float = 2.0
    """Longest pause between attempts while an emergency is waiting; the first attempt is immediate."""
    urgent_s: float = 2.0
    """While an emergency is waiting the broker must answer within this, or a new connection is tried at once …"""
    urgent_most_s: float = 10.0
    """… with twice the patience every time, so that a slow network is no dead one."""

    reply_first_s: float = 3.0
    reply_most_s: float = 60.0
    interim_replies_max: int = 64
    final_replies_max: int = 256
    """Final replies in memory that the cloud has not confirmed; more of them wait in the journal."""
    commands_running_max: int = 32

    telemetry_age_business_s_max: float = 60.0
    """A reading waits at most so long for others to share its message (a third of `silent_after_s` if that is less)."""
    unfinished_command_business_s: float = 30.0
    """After a restart the hardware may still report on a running command for so long; then it failed, `unknown`."""

    line_reopen_s: float = 1.0
    journal_retry_s: float = 1.0
    farewell_s: float = 1.0

    def refused_pause_s(self, refusals: int) -> float:
        """Pause after so many refusals in a row of one certificate, beside the ordinary jitter."""
        return min(self.refused_most_s, self.reconnect_jitter_s * 2.0 ** min(refusals, 16)) if refusals else 0.0
