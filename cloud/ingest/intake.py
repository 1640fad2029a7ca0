"""Turns a batch of raw messages into accepted ones, one lane of one device at a time.

A lane accepts exactly the next seq (ADR 0002). A repeat is acknowledged again, a hole makes the
device go back, and a message that decodes but breaks its kind's rules is refused with its reason and
passed over: poison never blocks. Nothing here touches a clock, a disk or the network.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import TypeAdapter, ValidationError

from cloud.ingest.decoder import (
    PayloadError,
    WholeMessage,
    decode_envelope,
    first_problem,
    payload_decoder,
    telemetry_decoder,
)
from cloud.model import Accepted, DeviceLane, Heard, Inbound, Quarantined
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.credentials import decode_certificate_request
from fleet.envelope import (
    BOOTS_PER_GENERATION,
    MESSAGE_BYTES_MAX,
    Envelope,
    EnvelopeError,
    Lane,
    Refused,
    TimeQuality,
    decode_hello,
    decode_status,
)
from fleet.kind import Kind
from fleet.messages import CLOCK_SKEW_FUTURE_S_MAX, CLOCK_SKEW_PAST_S_MAX, Reply
from fleet.topics import UpChannel, parse_up

LATE_AFTER_MS: Final = 60_000
QUARANTINED_PER_BATCH_MAX: Final = 1000
"""More than this in one batch are counted, not stored: a flood of rubbish must not fill the database."""

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_reply_adapter: TypeAdapter[Reply] = TypeAdapter(Reply)


class UnusableError(ValueError):
    """The message can't be used; the text says why."""


@dataclass(slots=True)
class AckDraft:
    """What the next acknowledgement to a device must say, besides its marks."""

    urgent: bool = False
    signed: bool = False
    """It speaks of events or emergencies, so it must be signed."""
    resend: set[Lane] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Gap:
    """Messages `first_seq … last_seq` that the device declared as evicted."""

    device_id: str
    lane: Lane
    generation: int
    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Intake:
    """One batch, sorted out."""

    telemetry: list[tuple[DeviceLane, Any, bytes]] = field(default_factory=list)
    """(lane, decoded message, raw bytes) of what is to be folded into the twins."""
    folded: list[tuple[DeviceLane, int, bytes]] = field(default_factory=list)
    """(lane, number, raw bytes) of what has been: what was decoded of it is let go of while the processor's cache
    has it still."""
    events: list[Accepted] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    quarantined_uncounted: int = 0
    gaps: list[Gap] = field(default_factory=list)
    acks: dict[str, AckDraft] = field(default_factory=dict)
    unknown: list[tuple[str, Inbound]] = field(default_factory=list)
    duplicates: int = 0
    holes: int = 0
    barred: set[str] = field(default_factory=set)
    """Revoked devices that were heard."""

    def ack(self, device_id: str) -> AckDraft:
        """The draft for a device, made on first use."""
        draft = self.acks.get(device_id)
        if draft is None:
            draft = self.acks[device_id] = AckDraft()
        return draft

    def merge(self, other: "Intake") -> None:
        """Take over what a second look at `unknown` gave."""
        self.unknown.clear()
        self.telemetry += other.telemetry
        self.events += other.events
        self.heard += other.heard
        self.quarantined += other.quarantined
        self.quarantined_uncounted += other.quarantined_uncounted
        self.gaps += other.gaps
        self.duplicates += other.duplicates
        self.holes += other.holes
        self.barred |= other.barred
        for device_id, draft in other.acks.items():
            self.acks.setdefault(device_id, draft)  # it was unknown a moment ago, so there is no draft yet


@dataclass(slots=True)
class _Route:
    lane: DeviceLane
    channel: UpChannel


class Ingest:
    """The stage. `lanes` maps device ids to what is known of them; the pipeline owns and fills it."""

    def __init__(self, lanes: Mapping[str, DeviceLane], kinds: Mapping[str, Kind]) -> None:
        self._lanes = lanes
        self._telemetry = {name: telemetry_decoder(kind) for name, kind in kinds.items()}
        self._payloads = {(name, lane): payload_decoder(kind, lane) for name, kind in kinds.items() for lane in Lane}
        self._routes: dict[str, _Route] = {}
        self._telemetry_routes: dict[str, tuple[DeviceLane, Callable[[bytes], Any], _Route]] = {}
        self._steady_ms = 0
        self.excused_ms = 0, 0  # not empty while our own clock seems to be wrong: see ClockWatch

    def forget_routes(self) -> None:
        """Lanes were replaced or removed; look every topic up afresh."""
        self._routes.clear()
        self._telemetry_routes.clear()

    def accept(
        self,
        batch: Iterable[Inbound],
        now_ms: int,
        *,
        steady_ms: int | None = None,
        unknown_is_final: bool = False,
        replayed: bool = False,
        into: Intake | None = None,
    ) -> Intake:
        """Sort out a batch, in order. Marks of the lanes advance here; the pipeline makes that durable or dies.

        `steady_ms`: what time it would be had our clock not been set (see `SteadyTime`); a time stamp is refused only
        if it can't be by either. `replayed`: from our own spool, where waiting is no lateness of the device. `into`:
        what the messages before these gave, to be added to.
        """
        intake = Intake() if into is None else into
        self._steady_ms = now_ms if steady_ms is None else steady_ms
        telemetry_routes = self._telemetry_routes
        telemetry = intake.telemetry
        earliest = now_ms - CLOCK_SKEW_PAST_S_MAX * MILLISECONDS_PER_SECOND
        latest = now_ms + CLOCK_SKEW_FUTURE_S_MAX * MILLISECONDS_PER_SECOND
        late_before = 0 if replayed else now_ms - LATE_AFTER_MS
        for message in batch:
            # The hot path: everything below runs for each of up to 100,000 messages per second. Whatever is not
            # plainly the next telemetry of its lane takes the slow way, which explains what is wrong with it.
            topic = message.topic
            if topic not in telemetry_routes:
                self._accept_other(message, now_ms, intake, unknown_is_final=unknown_is_final)
                continue
            lane, decode, route = telemetry_routes[topic]
            payload = message.payload
            try:
                envelope = decode(payload)
            except _UNREADABLE:
                self._accept_lane(route, message, now_ms, intake)
                continue
            at = envelope.occurred_at
            readings = envelope.payload.readings
            if (
                envelope.seq != lane.telemetry_seq + 1
                or envelope.boot_epoch // BOOTS_PER_GENERATION != lane.generation
                or envelope.device_id != lane.device_id
                or not earliest <= at <= latest
                or lane.retired
                or lane.revoked
                or envelope.time_quality
                or len(payload) > MESSAGE_BYTES_MAX
                or (
                    (len(readings) != 1 or readings[0].at != at)
                    and not all(earliest <= reading.at <= latest for reading in readings)
                )
            ):
                self._accept_lane(route, message, now_ms, intake)
                continue
            lane.telemetry_seq += 1
            if at < late_before:
                lane.presence.late += 1
            telemetry.append((lane, envelope, payload))
        return intake

    def _accept_other(self, message: Inbound, now_ms: int, intake: Intake, *, unknown_is_final: bool) -> None:
        route = self._routes.get(message.topic) or self._find_route(
            message, now_ms, intake, unknown_is_final=unknown_is_final
        )
        if route is None:
            return
        if route.channel is UpChannel.TELEMETRY:
            self._accept_lane(route, message, now_ms, intake)  # the first one of its topic
        else:
            self._accept_rare(route, message, now_ms, intake)

    def _find_route(self, message: Inbound, now_ms: int, intake: Intake, *, unknown_is_final: bool) -> _Route | None:
        try:
            topic = parse_up(message.topic)
        except ValueError as error:
            self._set_aside(intake, message, now_ms, str(error))
            return None
        lane = self._lanes.get(topic.device_id)
        if lane is None:
            if unknown_is_final:
                self._set_aside(
                    intake, message, now_ms, f"unknown device {topic.device_id!r}: enrol it first", topic.device_id
                )
            else:
                intake.unknown.append((topic.device_id, message))
            return None
        decode = self._telemetry.get(lane.kind)
        if decode is None:
            self._set_aside(
                intake, message, now_ms, f"unknown kind {lane.kind!r}: no folder offers it", topic.device_id
            )
            return None
        route = self._routes[message.topic] = _Route(lane, topic.channel)
        if topic.channel is UpChannel.TELEMETRY:
            self._telemetry_routes[message.topic] = (lane, decode, route)
        return route

    def _accept_rare(self, route: _Route, message: Inbound, now_ms: int, intake: Intake) -> None:
        match route.channel:
            case UpChannel.EMERGENCY | UpChannel.EVENT:
                self._accept_lane(route, message, now_ms, intake)
            case UpChannel.HELLO:
                self._hear(route, message, now_ms, intake, "hello", decode_hello)
            case UpChannel.STATUS:
                self._hear(route, message, now_ms, intake, "status", decode_status)
            case UpChannel.CERTIFICATE:
                self._hear(route, message, now_ms, intake, "request", decode_certificate_request)
            case _:
                self._hear(route, message, now_ms, intake, "reply", _reply_adapter.validate_json)

    def _hear(
        self, route: _Route, message: Inbound, now_ms: int, intake: Intake, name: str, decode: Callable[[bytes], Any]
    ) -> None:
        lane = route.lane
        try:
            content = decode(message.payload)
            _same_device(lane, content.device_id)
            if name == "hello" and content.kind != lane.kind:
                raise UnusableError(f"{lane.device_id} is enrolled as {lane.kind}, not {content.kind}")
            if lane.retired:
                raise UnusableError(f"{lane.device_id} is retired")
            if lane.revoked:
                intake.barred.add(lane.device_id)
                raise UnusableError(f"{lane.device_id} is revoked: enrol it anew")
        except ValidationError as error:
            self._set_aside(intake, message, now_ms, first_problem(error), lane.device_id)
            return
        except (EnvelopeError, UnusableError) as error:
            self._set_aside(intake, message, now_ms, str(error), lane.device_id)
            return
        intake.heard.append(Heard(lane.device_id, now_ms, **{name: content}))

    def _accept_lane(self, route: _Route, message: Inbound, now_ms: int, intake: Intake) -> None:
        """Any message of a lane, the slow and explaining way."""
        lane = route.lane
        if lane.revoked:  # not acknowledged: whoever sends this is not believed to be the device
            intake.barred.add(lane.device_id)
            reason = f"{lane.device_id} is revoked: enrol it anew"
            self._set_aside(intake, message, now_ms, reason, lane.device_id, Lane(route.channel.value))
            return
        try:
            envelope = decode_envelope(message.payload)
            _same_device(lane, envelope.device_id)
            if envelope.lane.value != route.channel.value:
                raise UnusableError(f"lane {envelope.lane.value} on topic {route.channel.value}")
        except (EnvelopeError, UnusableError) as error:
            self._set_aside(intake, message, now_ms, str(error), lane.device_id)
            return
        draft = intake.ack(lane.device_id)
        draft.urgent = draft.urgent or envelope.lane is Lane.EMERGENCY
        draft.signed = draft.signed or envelope.lane is not Lane.TELEMETRY
        if not _is_next(lane, envelope, draft, intake):
            self._accept_early(lane, envelope, message, now_ms, intake)
            return
        lane.advance(envelope.lane, envelope.seq)
        try:
            payload = self._payload(lane, envelope, now_ms)
        except (PayloadError, UnusableError) as error:
            draft.refused.append(Refused(envelope.lane, envelope.seq, str(error)[:200]))
            self._set_aside(intake, message, now_ms, str(error), lane.device_id, envelope.lane, envelope.seq)
            return
        if now_ms - envelope.occurred_at > LATE_AFTER_MS:
            lane.presence.late += 1
        lane.presence.time_corrected += envelope.time_quality is TimeQuality.CORRECTED
        lane.presence.time_uncertain += envelope.time_quality is TimeQuality.UNCERTAIN
        if envelope.lane is Lane.TELEMETRY:
            # Keep the hot path's shape: a header with `payload.readings`.
            intake.telemetry.append((lane, WholeMessage(envelope, payload), message.payload))
            return
        if not _plausible(envelope.occurred_at, now_ms, self._steady_ms):
            envelope = msgspec.structs.replace(envelope, occurred_at=now_ms, time_quality=TimeQuality.UNCERTAIN)
        late = now_ms - envelope.occurred_at > LATE_AFTER_MS
        intake.events.append(Accepted(lane, envelope, message.payload, event=payload, late=late))

    def _accept_early(self, lane: DeviceLane, envelope: Any, message: Inbound, now_ms: int, intake: Intake) -> None:
        """A number out of turn never hides a person: emergencies are passed on; their event ids tell repeats apart."""
        if envelope.lane is not Lane.EMERGENCY:
            return
        try:
            payload = self._payload(lane, envelope, now_ms)
        except (PayloadError, UnusableError):
            return  # refused, with its reason, when its turn comes
        if not _plausible(envelope.occurred_at, now_ms, self._steady_ms):
            envelope = msgspec.structs.replace(envelope, occurred_at=now_ms, time_quality=TimeQuality.UNCERTAIN)
        intake.events.append(Accepted(lane, envelope, message.payload, event=payload, early=True))

    def _payload(self, lane: DeviceLane, envelope: Any, now_ms: int) -> Any:
        if lane.retired:
            raise UnusableError(f"{lane.device_id} is retired")
        if envelope.kind != lane.kind:
            raise UnusableError(f"{lane.device_id} is enrolled as {lane.kind}, not {envelope.kind}")
        payload = self._payloads[lane.kind, envelope.lane](bytes(envelope.payload))
        if envelope.lane is not Lane.TELEMETRY:
            return payload  # a device with a wrong clock, or a cloud: what happened counts as of its receipt
        moments = [envelope.occurred_at, *(reading.at for reading in getattr(payload, "readings", ()))]
        for moment in moments:
            if _plausible(moment, now_ms, self._steady_ms) or self.excused_ms[0] < moment <= self.excused_ms[1]:
                continue
            if moment > now_ms:
                raise UnusableError(f"time stamp is {(moment - now_ms) // 1000} s in the future")
            raise UnusableError(f"time stamp is {(now_ms - moment) // 86_400_000} days old")
        return payload

    def _set_aside(
        self,
        intake: Intake,
        message: Inbound,
        now_ms: int,
        reason: str,
        device_id: str | None = None,
        lane: Lane | None = None,
        seq: int | None = None,
    ) -> None:
        if device_id is not None and (known := self._lanes.get(device_id)) is not None:
            known.presence.quarantined += 1
        if len(intake.quarantined) >= QUARANTINED_PER_BATCH_MAX:
            intake.quarantined_uncounted += 1
            return
        intake.quarantined.append(
            Quarantined(now_ms, message.topic[:200], message.payload, reason[:500], device_id, lane, seq)
        )


def _plausible(at: int, *nows_ms: int) -> bool:
    past_ms = CLOCK_SKEW_PAST_S_MAX * MILLISECONDS_PER_SECOND
    future_ms = CLOCK_SKEW_FUTURE_S_MAX * MILLISECONDS_PER_SECOND
    return any(now_ms - past_ms <= at <= now_ms + future_ms for now_ms in nows_ms)


def _is_next(lane: DeviceLane, envelope: Envelope, draft: AckDraft, intake: Intake) -> bool:
    """Whether this is the next one of its lane, counting what else it may be: another storage's, a repeat, a hole."""
    if envelope.generation != lane.generation:
        intake.holes += 1
        lane.presence.holes += 1  # the device says hello again when it learns the generation we know
        return False
    mark = lane.mark(envelope.lane)
    if envelope.seq <= mark:
        intake.duplicates += 1
        lane.presence.duplicates += 1
        return False
    if envelope.seq == mark + 1:
        return True
    if envelope.evicted_from is None or envelope.evicted_from > mark + 1:
        intake.holes += 1
        lane.presence.holes += 1
        draft.resend.add(envelope.lane)
        return False
    intake.gaps.append(Gap(lane.device_id, envelope.lane, lane.generation, mark + 1, envelope.seq - 1))
    lane.presence.evicted += envelope.seq - 1 - mark
    return True


def _same_device(lane: DeviceLane, device_id: str) -> None:
    if device_id != lane.device_id:
        raise UnusableError(f"topic says {lane.device_id!r}, the message says {device_id!r}")
