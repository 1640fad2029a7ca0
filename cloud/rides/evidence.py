"""What the lock reports, turned into rides. Everything here runs inside the commit of the report itself.

Nothing may raise for what a device or a wallet did: that would stop the commit of everybody's messages.
"""

from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row

from cloud.model import CommandOutcome, StoredEvent
from cloud.ports import CommandSender
from cloud.rides import fees, repository
from cloud.rides.lifecycle import RIDE, RideEvent, RideState
from devices.bike.messages import Lock
from fleet.messages import ReplyStatus

_log = structlog.get_logger(__name__)

REVOKED_REASON: Final = "bike_revoked"
UNCERTAIN_REASONS: Final = frozenset({"hardware_silent", "unknown", "power_lost", "link_lost"})
"""After these the lock may have opened all the same: the ride waits for evidence until its deadline."""
_NOT_OPENED: Final = frozenset({ReplyStatus.FAILED.value, ReplyStatus.REFUSED.value, ReplyStatus.EXPIRED.value})


class LockEvidence:
    """Handlers for the pipeline; see `cloud.model.EventHandler` and `OutcomeHandler`."""

    def __init__(self, commands: CommandSender) -> None:
        self._commands = commands

    def opened(self, tx: Connection, event: StoredEvent) -> None:
        """The ride of the command that opened the lock starts at that moment; too late, and it is locked again.

        Never under somebody else: while another ride holds the bike, a late opening is flagged and nothing more.
        """
        if event.body.command_id is None:
            return  # by hand or force: the kind's rules raise the alarm
        ride = repository.by_command(tx, event.body.command_id)
        if ride is None or ride.device_id != event.device_id:
            return  # crew or admin opened it
        if ride.state == RideState.UNLOCKING and event.received_at <= ride.deadline_at:
            # A device's clock can't move the start before the asking or into the future.
            started_at = min(max(event.occurred_at, ride.asked_at), event.received_at)
            _move(tx, ride, RideEvent.OPENED, event.received_at, started_at=started_at)
            return
        if ride.state == RideState.UNLOCKING:
            _move(tx, ride, RideEvent.EXPIRED, event.received_at, reason="expired")
        if ride.state in {RideState.UNLOCKING, RideState.NEVER_BEGAN}:
            _flag(tx, ride, "opened_late", event.received_at)
            if repository.open_of_bike(tx, event.device_id) is None:
                self._lock_again(tx, event.device_id)

    def closed(self, tx: Connection, event: StoredEvent) -> None:
        """The ride of this bike ends when its lock closed."""
        ride = repository.open_of_bike(tx, event.device_id)
        if ride is not None and ride.state == RideState.RIDING:
            _end(tx, ride, RideEvent.CLOSED, event)

    def jammed(self, tx: Connection, event: StoredEvent) -> None:
        """A jam in opening: no ride. A jam in closing: the rider's clock stops, and somebody looks at it."""
        ride = repository.open_of_bike(tx, event.device_id)
        if ride is None:
            return
        if ride.state == RideState.RIDING:
            _end(tx, ride, RideEvent.JAMMED, event, reason="jam", flag="jammed")
        elif event.body.command_id == ride.command_id:
            _move(tx, ride, RideEvent.JAMMED, event.received_at, reason="jam")

    def answered(self, tx: Connection, outcome: CommandOutcome) -> None:
        """The bike said that it did not open. `succeeded` alone starts nothing: the event is the evidence."""
        if outcome.status not in _NOT_OPENED or outcome.reason in UNCERTAIN_REASONS:
            return
        ride = repository.by_command(tx, outcome.command_id)
        if ride is not None and ride.state == RideState.UNLOCKING:
            _move(tx, ride, RideEvent.FAILED, outcome.at, reason=outcome.reason or outcome.status)

    def _lock_again(self, tx: Connection, device_id: str) -> None:
        try:
            self._commands.order(tx, device_id, Lock(), actor="system")
        except (LookupError, ValueError) as error:  # the flag stays, and so does the kind's own alarm
            _log.warning("bike opened late and could not be locked again", device_id=device_id, error=str(error))


def expire(tx: Connection, now_ms: int, limit: int) -> list[Row[Any]]:
    """End rides without evidence in time; returns them as they are now."""
    late = repository.overdue(tx, now_ms, limit)
    ended = [ride for ride in late if _move(tx, ride, RideEvent.EXPIRED, now_ms, reason="expired")]
    found = [repository.one(tx, ride.id, ride.person_id) for ride in ended]
    return [ride for ride in found if ride is not None]


def end_revoked(tx: Connection, now_ms: int, limit: int) -> list[Row[Any]]:
    """End rides on bikes that were revoked under the rider; returns them as they are now.

    A ride costs what it would if the lock had closed now; one that had not begun costs nothing.
    """
    found = repository.on_revoked_bikes(tx, limit)
    for ride in found:
        if ride.state == RideState.RIDING:
            _settle(
                tx, ride, RideEvent.REVOKED, max(now_ms, ride.started_at), now_ms, reason=REVOKED_REASON, flag="revoked"
            )
        else:
            _move(tx, ride, RideEvent.REVOKED, now_ms, reason=REVOKED_REASON)
    ended = [repository.one(tx, ride.id, ride.person_id) for ride in found]
    return [ride for ride in ended if ride is not None]


def _move(tx: Connection, ride: Row[Any], event: RideEvent, at: int, **columns: Any) -> bool:
    before = RideState(ride.state)
    after = RIDE.next(before, event)
    return repository.move(tx, ride.id, before, state=after.value, changed_at=at, **columns)


def _flag(tx: Connection, ride: Row[Any], word: str, at: int) -> None:
    words = dict.fromkeys([*ride.flagged.split(), word])
    repository.set_flags(tx, ride.id, " ".join(words), at)


def _end(
    tx: Connection, ride: Row[Any], happened: RideEvent, event: StoredEvent, reason: str = "", flag: str = ""
) -> None:
    # The device's own time is what counts, so that a dead spot costs nothing, within what the cloud knows for sure.
    ended_at = min(max(event.occurred_at, ride.started_at), event.received_at)
    _settle(tx, ride, happened, ended_at, event.received_at, reason=reason, flag=flag)


def _settle(
    tx: Connection, ride: Row[Any], happened: RideEvent, ended_at: int, at: int, *, reason: str, flag: str
) -> None:
    fee = fees.fee_fen(ended_at - ride.started_at)
    if not _move(tx, ride, happened, at, ended_at=ended_at, fee_fen=fee, reason=reason):
        return
    short = fees.charge(tx, ride.id, ride.person_id, fee, at)
    words = [word for word in (flag, repository.UNPAID if short else "") if word]
    if words:
        repository.set_flags(tx, ride.id, " ".join([*ride.flagged.split(), *words]), at)
