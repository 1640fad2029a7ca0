"""Every lane this process owns, in memory: loaded from its twin row, watched for silence, put on the schedule."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import structlog
from sqlalchemy import RowMapping

from cloud import metrics, presence_metrics
from cloud.model import DeviceLane
from cloud.presence import decode as decode_presence
from cloud.rules.stage import Rules
from cloud.schedule import Schedule
from cloud.twin.stage import Twin
from fleet import topics
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

_log = structlog.get_logger(__name__)

CLOCK_STEP_MS: Final = 2_000
"""A wall clock that went so much more or less than the monotonic one was set."""
STALL_S: Final = 1.5
"""Real seconds between two rounds after which we were the ones who did not listen: nobody is silent for that."""


class LaneBook:
    """The lanes by device id, their due times, and since when we hear them at all."""

    def __init__(self, twin: Twin, rules: Rules, clock: Clock) -> None:
        self.lanes: dict[str, DeviceLane] = {}
        presence_metrics.PRESENCE.books.add(self)
        self.schedule = Schedule()
        self.listening_since_ms: int | None = None
        """Business time since when devices can be heard; None while the link is down."""
        self._twin = twin
        self._rules = rules
        self._clock = clock
        self._shards: Collection[int] = ()
        self._round_began_s = 0.0
        self._round_began_ms = 0

    def own(self, shards: Collection[int]) -> None:
        """Take lanes of these shards only; whatever was loaded is let go of, and nobody is heard yet."""
        self._shards = shards
        self.lanes.clear()
        self.schedule = Schedule()
        self.listening_since_ms = None
        self._round_began_s = 0.0

    def owns(self, device_id: str) -> bool:
        """Whether this device's lane is ours, loaded or not."""
        return topics.shard_of(device_id) in self._shards

    def load(self, rows: Sequence[RowMapping]) -> None:
        """Make lanes of `cloud.twin.repository.lane_rows` that are ours and not here yet."""
        for row in rows:
            if row["device_id"] in self.lanes:
                continue
            if not self._twin.knows(row["kind"]):
                _refuse_unknown(row)
                continue
            if not self.owns(row["device_id"]):
                continue
            lane = self._twin.new_lane(row["device_id"], row["kind"])
            lane.desk = self._rules.new_desk()
            lane.generation, lane.storage_id = row["generation"], row["storage_id"]
            lane.retired = row["retired_at"] is not None
            lane.revoked = row["revoked_at"] is not None
            if row["state"] is not None:
                self._restore(lane, row)
            self.lanes[lane.device_id] = lane
            self.reschedule(lane)

    def _restore(self, lane: DeviceLane, row: RowMapping) -> None:
        try:
            lane.state = self._twin.decode_state(lane.kind, row["state"])
        except msgspec.MsgspecError as error:  # an older release's state: begin afresh, lanes and incidents stay
            _log.warning(
                "state not readable, starting from the kind's initial state", device_id=lane.device_id, error=str(error)
            )
        lane.desk = self._rules.decode_desk(lane.kind, row["desk"])
        for name in (
            "emergency_seq",
            "event_seq",
            "telemetry_seq",
            "link_boot_epoch",
            "link_connection",
            "link_changed_at",
            "last_heard_at",
            "last_reading_at",
            "version",
        ):
            setattr(lane, name, row[name])
        lane.presence = decode_presence(row["presence"])
        lane.telemetry_committed_seq = lane.telemetry_seq
        lane.online = bool(row["online"])

    def reschedule(self, lane: DeviceLane) -> None:
        """Ask the rules when this lane is due next."""
        due = self._rules.next_due(lane, self.listening_since_ms)
        self.schedule.put(lane.device_id, due)
        # The first word of a device brings its silence forward, so until then the lane counts as not scheduled.
        lane.next_due_at = due if lane.last_heard_at else None

    def watch(self, now_ms: int, *, connected: bool) -> None:
        """Silence of devices counts only while we can hear them at all: link up, and we not busy elsewhere."""
        began_s, self._round_began_s = self._round_began_s, self._clock.monotonic_s()
        stalled = self._round_began_s - began_s > STALL_S
        stalled = self._clock_was_set(now_ms, self._round_began_s - began_s) or stalled
        if not stalled and connected == (self.listening_since_ms is not None):
            return
        if stalled:
            metrics.STALLS.inc()
        self.listening_since_ms = now_ms if connected else None
        for lane in self.lanes.values():
            self.reschedule(lane)

    def _clock_was_set(self, now_ms: int, elapsed_s: float) -> bool:
        """Whether the wall clock jumped since the last round; then no wait may have become longer (decision 12)."""
        went_ms, self._round_began_ms = now_ms - self._round_began_ms, now_ms
        if abs(went_ms - elapsed_s * MILLISECONDS_PER_SECOND * self._clock.speed) <= CLOCK_STEP_MS * self._clock.speed:
            return False
        for lane in self.lanes.values():
            self._rules.clock_set(lane, now_ms)
        return True


class UnknownKindError(RuntimeError):
    """Somebody waits for help at a device whose kind is not installed here; the text names the fix."""


def _refuse_unknown(row: RowMapping) -> None:
    if row["retired_at"] is not None:
        return
    fix = f"add the folder of kind {row['kind']!r} to FLEET_KIND_FOLDERS, or retire the device"
    if row["desk"] is not None and msgspec.json.decode(row["desk"]).get("call"):
        raise UnknownKindError(f"{row['device_id']} has an open emergency call, but its kind is unknown here: {fix}")
    _log.error("a device in service is ignored: its kind is unknown here", device_id=row["device_id"], fix=fix)
