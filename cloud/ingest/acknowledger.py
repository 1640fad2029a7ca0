"""Application acknowledgements: at once for emergencies and events, at most one per device and second for telemetry.

Whatever speaks of events, emergencies or replies is signed; telemetry alone is not (ADR 0015).

A device hears only of marks that are committed, also for telemetry, which is durable in the spool before: whoever
takes the device over knows nothing but what is committed (ADR 0008).
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from cloud.ingest.intake import AckDraft, Intake
from cloud.model import DeviceLane, Downstream
from cloud.ports import SigningKeys
from fleet.envelope import Acknowledgement, Lane, Welcome, encode
from fleet.signing import sign_acknowledgement, sign_welcome
from fleet.topics import DownChannel, down

TELEMETRY_ACK_EVERY_S: Final = 1.0
REFUSED_PER_ACK_MAX: Final = 100


class Acknowledger:
    """Collects what is committed and says when it is time to tell each device."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys
        self._ready: dict[str, AckDraft] = {}
        self._later: OrderedDict[str, float] = OrderedDict()  # device → real time of its coalesced acknowledgement
        self._told_s: dict[str, float] = {}
        self._topics: dict[str, str] = {}
        self._welcomes: list[Downstream] = []
        self._trusted: dict[str, tuple[str, ...]] = {}  # device → key ids that its last hello listed

    def forget(self) -> None:
        """The lanes are about to be loaded anew, perhaps others: nothing that waits here is known to be ours."""
        self._ready, self._welcomes = {}, []
        self._later.clear()
        self._told_s.clear()

    def welcome(
        self, lane: DeviceLane, nonce: str, now_ms: int, trusted: Collection[str] = (), emergency_digest: str = ""
    ) -> None:
        """Answer a hello: signed time, generation and marks, and new command keys if it listed (`trusted`) others.

        `emergency_digest` tells the device which emergency the mark of that lane stands for.
        """
        self._trusted[lane.device_id] = tuple(trusted)
        welcome = sign_welcome(
            Welcome(
                nonce=nonce,
                time_ms=now_ms,
                generation=lane.generation,
                marks=lane.marks(),
                command_keys=self._keys.announcement(trusted),
                emergency_digest=emergency_digest,
            ),
            lane.device_id,
            *self._keys.for_welcome(trusted),
        )
        self._welcomes.append(Downstream(down(lane.device_id, DownChannel.ACK), encode(welcome)))

    def note(self, intake: Intake, real_s: float) -> None:
        """A batch is durable: what it says besides marks."""
        later, told = self._later, self._told_s
        for device_id, draft in intake.acks.items():
            if draft.urgent or draft.signed or draft.resend or draft.refused:
                self._ready[device_id] = draft
            elif device_id not in later:  # a repeat of something committed long ago: say so again
                later[device_id] = max(real_s, told.get(device_id, 0.0) + TELEMETRY_ACK_EVERY_S)

    def committed(self, lanes: Iterable[DeviceLane], real_s: float) -> None:
        """These lanes stand in the database as they are now; devices whose telemetry went on are told soon."""
        later, told = self._later, self._told_s
        for lane in lanes:
            if lane.telemetry_committed_seq != lane.telemetry_seq:
                lane.telemetry_committed_seq = lane.telemetry_seq
                if lane.device_id not in later:
                    later[lane.device_id] = max(real_s, told.get(lane.device_id, 0.0) + TELEMETRY_ACK_EVERY_S)

    def wait_s(self, real_s: float) -> float:
        """Real seconds until `due` has something for the first of the coalesced ones; 3600 without any."""
        if not self._later:
            return 3600.0
        return max(0.0, next(iter(self._later.values())) - real_s)

    def due(self, real_s: float, lanes: Mapping[str, DeviceLane]) -> list[Downstream]:
        """Everything that should be told now."""
        messages, self._welcomes = self._welcomes, []
        ready, self._ready = self._ready, {}
        for device_id, draft in ready.items():
            messages += self._acknowledge(lanes[device_id], draft, real_s)
        while self._later:
            device_id, at_s = next(iter(self._later.items()))
            if at_s > real_s:
                break
            messages.append(self._acknowledge_telemetry(lanes[device_id], real_s))
        return messages

    def _acknowledge_telemetry(self, lane: DeviceLane, real_s: float) -> Downstream:
        """Nothing but telemetry, at up to one per device and second: a signature would cost more than the rest."""
        device_id = lane.device_id
        self._later.pop(device_id, None)
        self._told_s[device_id] = real_s
        acknowledgement = Acknowledgement(lane.generation, {Lane.TELEMETRY: lane.telemetry_committed_seq})
        return Downstream(self._topic(device_id), encode(acknowledgement))

    def _topic(self, device_id: str) -> str:
        topic = self._topics.get(device_id)
        if topic is None:
            topic = self._topics[device_id] = down(device_id, DownChannel.ACK)
        return topic

    def _acknowledge(self, lane: DeviceLane, draft: AckDraft, real_s: float) -> list[Downstream]:
        self._later.pop(lane.device_id, None)
        self._told_s[lane.device_id] = real_s
        topic = self._topic(lane.device_id)
        parts = range(0, max(1, len(draft.refused)), REFUSED_PER_ACK_MAX)
        acknowledgements = [
            Acknowledgement(
                generation=lane.generation,
                marks=lane.marks(),
                resend=tuple(sorted(draft.resend)) if index == 0 else (),
                refused=tuple(draft.refused[index : index + REFUSED_PER_ACK_MAX]),
                replies=tuple(draft.replies) if index == 0 else (),
            )
            for index in parts
        ]
        if draft.urgent or draft.signed or draft.refused:
            keys = self._keys.for_command(self._trusted.get(lane.device_id, ()))
            acknowledgements = [sign_acknowledgement(item, lane.device_id, *keys) for item in acknowledgements]
        else:
            telemetry = {Lane.TELEMETRY: lane.marks()[Lane.TELEMETRY]}
            acknowledgements = [msgspec.structs.replace(item, marks=telemetry) for item in acknowledgements]
        return [Downstream(topic, encode(item)) for item in acknowledgements]
