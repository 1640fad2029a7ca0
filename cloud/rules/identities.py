"""One identity in two places: copied storages, cloned boxes, an old box that comes back (ADR 0013).

Three signs, all in the hello. An *old storage returns* after another one took over. The *same start is counted twice*:
one storage and boot number, two random boot ids. Or a storage's *boot count goes backwards*: it was restored from a
copy. Any of them is an alarm, the same one for as long as signs go on coming.

A box whose disk takes no database says that its storage is a *temporary* one. When its own comes back it goes on where
it was, under its own generation: what was acknowledged to nobody yet is not stored a second time. That is no sign,
unless it happens again within the pause.

A storage that returns is granted a new generation only after a pause, so that two boxes that take the identity from
each other at every reconnect use up few of them. Until then its hello stays unanswered: telemetry and events wait on
the box, emergencies are acted on all the same, because they never wait for an answer.
"""

from enum import Enum
from typing import Final

from cloud.model import Decisions, DeviceLane
from cloud.rules.conditions import IDENTITY_TWICE
from cloud.rules.desk import AlarmStatus, Desk, Storage, Suspended
from cloud.rules.moves import move_alarm
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.envelope import Envelope, Hello, content_digest
from fleet.incident import ALARM, AlarmEvent
from fleet.kind import AlarmDefinition

STORAGES_MAX: Final = 16
"""Storages of one device that are remembered; the one that spoke longest ago is forgotten first."""
NONCES_MAX: Final = 4
RETURN_PAUSE_S: Final = 600.0
"""Business seconds between two generations that returning storages of one device may use up."""


class Answer(Enum):
    """What a hello is answered with."""

    WELCOME = "welcome"
    GRANT = "a new generation, then a welcome"
    RESUME = "its own generation again, then a welcome"
    NOTHING = "nothing, for now"


def on_hello(lane: DeviceLane, hello: Hello, definition: AlarmDefinition, now_ms: int, decisions: Decisions) -> Answer:
    """Remember who spoke, raise the alarm if need be, and say how to answer."""
    desk: Desk = lane.desk
    known = next((one for one in desk.storages if one.storage_id == hello.storage_id), None)
    if known is None and hello.storage_id == lane.storage_id:  # spoken for before storages were remembered
        known = Storage(hello.storage_id, hello.boots, hello.boot_id)
    takes_over = hello.storage_id != lane.storage_id
    resumes = takes_over and desk.suspended is not None and desk.suspended.storage_id == hello.storage_id
    if known is not None and hello.nonce in known.nonces:  # the same message again, maybe late
        return Answer.NOTHING if takes_over else Answer.WELCOME
    sign = "" if known is None else _sign(known, hello, takes_over=takes_over and not resumes)
    if takes_over and hello.temporary and desk.suspended is None:
        if 0 < desk.suspended_at > now_ms - RETURN_PAUSE_S * MILLISECONDS_PER_SECOND:
            sign = sign or "its storage was away twice in a short time"
        desk.suspended_at = now_ms
    if sign:
        _raise_alarm(lane, definition, sign, now_ms, decisions)
    answer = Answer.WELCOME
    if resumes:
        answer = Answer.RESUME
    elif takes_over:
        paused = known is not None and now_ms - desk.granted_at < RETURN_PAUSE_S * MILLISECONDS_PER_SECOND
        answer = Answer.NOTHING if paused else Answer.GRANT
        if not paused:
            desk.granted_at = now_ms
            if lane.storage_id is not None and all(one.storage_id != lane.storage_id for one in desk.storages):
                desk.storages.append(Storage(lane.storage_id, 0, ""))
    _remember(desk, known, hello)
    return answer


def take_over(lane: DeviceLane, hello: Hello, answer: Answer) -> bool:
    """Let the storage of `hello` speak for the device from now on, if that is the answer; whether it is."""
    desk: Desk = lane.desk
    if answer is Answer.RESUME and desk.suspended is not None:
        was, desk.suspended = desk.suspended, None
        lane.storage_id, lane.generation = was.storage_id, was.generation
        lane.emergency_seq, lane.event_seq, lane.telemetry_seq = was.emergency_seq, was.event_seq, was.telemetry_seq
        # The stand-in's connection counted under a higher number: what it said of the link is over.
        lane.link_boot_epoch = lane.link_connection = 0
        return True
    if answer is not Answer.GRANT:
        return False
    # New storage, new keys: marks start again, and an old storage can't speak for this device any more.
    if not hello.temporary:
        desk.suspended = None
    elif desk.suspended is None and lane.storage_id is not None:
        desk.suspended = Suspended(
            lane.storage_id, lane.generation, lane.emergency_seq, lane.event_seq, lane.telemetry_seq
        )
    desk.generations = max(desk.generations, lane.generation) + 1
    lane.storage_id, lane.generation = hello.storage_id, desk.generations
    lane.emergency_seq = lane.event_seq = lane.telemetry_seq = 0
    lane.presence.renewed()
    return True


def note_emergency(lane: DeviceLane, envelope: Envelope) -> None:
    """An emergency was taken in its turn: the device can recognise it as its own in the next welcome."""
    for storage in lane.desk.storages:
        if storage.storage_id == lane.storage_id:
            storage.emergency_seq, storage.emergency_digest = envelope.seq, content_digest(envelope)


def emergency_digest(lane: DeviceLane) -> str:
    """Of the emergency at the lane's mark; empty if that was none that could be read."""
    for storage in lane.desk.storages:
        if storage.storage_id == lane.storage_id and storage.emergency_seq == lane.emergency_seq:
            return str(storage.emergency_digest)
    return ""


def _sign(known: Storage, hello: Hello, *, takes_over: bool) -> str:
    if takes_over:
        return "an old storage returned"
    if hello.boots < known.boots:
        return f"its start {hello.boots} came after its start {known.boots}"
    if hello.boots == known.boots and known.boot_id not in {hello.boot_id, ""}:
        return f"its start {hello.boots} was counted by two processes"
    return ""


def _remember(desk: Desk, known: Storage | None, hello: Hello) -> None:
    nonces = [] if known is None else known.nonces
    others = [one for one in desk.storages if one.storage_id != hello.storage_id]
    latest = Storage(hello.storage_id, hello.boots, hello.boot_id, [*nonces, hello.nonce][-NONCES_MAX:])
    if known is not None:
        latest.emergency_seq, latest.emergency_digest = known.emergency_seq, known.emergency_digest
    desk.storages = [*others, latest][-STORAGES_MAX:]


def _raise_alarm(lane: DeviceLane, definition: AlarmDefinition, sign: str, now_ms: int, decisions: Decisions) -> None:
    """A sign is a moment, not a state: the alarm returns when none came for its off delay."""
    desk: Desk = lane.desk
    status = desk.alarms.setdefault(IDENTITY_TWICE, AlarmStatus())
    status.condition, status.since = False, now_ms
    decisions.attention.add(lane.device_id)
    if ALARM.allows(status.state, AlarmEvent.ACTIVATE):
        move_alarm(lane, definition, status, AlarmEvent.ACTIVATE, now_ms, decisions, note=sign)
