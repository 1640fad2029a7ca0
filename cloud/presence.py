"""Whether a device is there, in three parts that are never one: its link, its data, and each of its sensors.

`Presence` is what a lane remembers for it beside its seqs; it is stored as JSON with the twin. The functions
turn it into answers for people; they are pure and used by pages, API, command line and metrics alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.kind import Kind
from fleet.sensors import Sensor

DROPS_UNSTABLE: Final = 5
UNSTABLE_AFTER_MS: Final = 60_000
STABLE_AFTER_MS: Final = 600_000
"""A link that was lost `DROPS_UNSTABLE` times in one run, and for at least a minute, is unstable; without a loss
for `STABLE_AFTER_MS` the run is over. A broker that goes away is no loss of any device's link."""

LinkState = Literal["up", "down", "unknown"]
Freshness = Literal["fresh", "stale", "never"]


class Presence(msgspec.Struct, omit_defaults=True):
    """One lane's memory. Counts are of the present storage generation; times are business ms."""

    hello_at: int = 0
    firmware: str = ""
    firmware_before: str = ""
    firmware_at: int = 0
    """When the device first named its present firmware, and what it had named until then."""
    boots: int = 0
    duplicates: int = 0
    """Messages that came again and were committed before."""
    holes: int = 0
    """Times that a message was missing and the device was asked to send it again."""
    evicted: int = 0
    """Messages that the device declared as discarded."""
    late: int = 0
    """Messages that had waited on the device for longer than a minute."""
    time_corrected: int = 0
    """Messages that the device stamped before it knew the time, and corrected."""
    time_uncertain: int = 0
    """Messages of which nobody can say exactly when they were made."""
    quarantined: int = 0
    run_began_at: int = 0
    """First loss of the link in the present run of losses; 0 without one."""
    run_drops: int = 0
    dropped_at: int = 0
    """Last loss of the link."""
    drops: int = 0
    """Losses of the link, all of them."""
    lost: dict[str, int] = {}
    """Sensor → when its value was last good, for those whose latest value is not; 0 if it never was."""

    def dropped(self, now_ms: int) -> None:
        """The link was lost."""
        if not self.run_drops or not 0 <= now_ms - self.dropped_at < STABLE_AFTER_MS:
            self.run_began_at, self.run_drops = now_ms, 0
        self.run_drops += 1
        self.drops += 1
        self.dropped_at = now_ms

    def is_unstable(self) -> bool:
        """At a loss of the link: whether the run that it belongs to is long enough to be told."""
        return self.run_drops >= DROPS_UNSTABLE and self.dropped_at - self.run_began_at >= UNSTABLE_AFTER_MS

    def renewed(self) -> None:
        """A new storage generation: its numbers and counts start again."""
        self.duplicates = self.holes = self.evicted = self.late = self.quarantined = 0
        self.time_corrected = self.time_uncertain = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Presence)


def encode(presence: Presence) -> str:
    """JSON for the twin row."""
    return _encoder.encode(presence).decode()


def decode(text: str | None) -> Presence:
    """From its row; what an older release stored, or nothing, is an empty one."""
    try:
        return _decoder.decode(text or "{}")
    except msgspec.MsgspecError:
        return Presence()


@dataclass(frozen=True, slots=True)
class SensorFreshness:
    """How old the last good value of one sensor is; `last_good_at` is None if there never was one."""

    sensor: Sensor
    state: Freshness
    last_good_at: int | None


@dataclass(frozen=True, slots=True)
class Freshnesses:
    """The three answers at one moment.

    `link` is `unknown` while nothing is known to have ended it but nothing was heard either: after a broker
    died nobody tells of the devices that died with it. `data` is judged by the readings' own time, so a device
    that sends what it had kept is not fresh before it has caught up.
    """

    link: LinkState
    link_changed_at: int | None
    data: Freshness
    data_at: int | None
    sensors: tuple[SensorFreshness, ...]


def data_stale_after_ms(kind: Kind) -> int:
    """How old the latest reading may be: the time after which a device counts as silent, and one reading more."""
    return round((kind.silent_after_s + kind.reading_interval_s) * MILLISECONDS_PER_SECOND)


def judge(
    kind: Kind,
    sensors: Sequence[Sensor],
    presence: Presence,
    *,
    link_online: bool | None,
    link_changed_at: int | None,
    last_heard_at: int | None,
    last_reading_at: int | None,
    reading: Mapping[str, Any],
    now_ms: int,
    delay_ms: int,
) -> Freshnesses:
    """Judge what is stored; `delay_ms` is how far the stored copy may be behind the device."""
    heard = bool(last_heard_at) and now_ms - (last_heard_at or 0) <= delay_ms + round(
        kind.silent_after_s * MILLISECONDS_PER_SECOND
    )
    link: LinkState = "down" if not link_online else "up" if heard else "unknown"
    if link_online is None:
        link = "unknown"
    data = _freshness(last_reading_at, data_stale_after_ms(kind) + delay_ms, now_ms)
    return Freshnesses(
        link,
        link_changed_at or None,
        data,
        last_reading_at or None,
        tuple(
            _judge_sensor(sensor, presence, data, last_reading_at or 0, reading, now_ms, delay_ms) for sensor in sensors
        ),
    )


def _freshness(at: int | None, limit_ms: int, now_ms: int) -> Freshness:
    if not at:
        return "never"
    return "fresh" if now_ms - at <= limit_ms else "stale"


def _judge_sensor(
    sensor: Sensor,
    presence: Presence,
    data: Freshness,
    last_reading_at: int,
    reading: Mapping[str, Any],
    now_ms: int,
    delay_ms: int,
) -> SensorFreshness:
    if sensor.key in presence.lost:
        good_at = presence.lost[sensor.key]
    else:
        age_s = reading.get(sensor.age_field) or 0.0
        good_at = last_reading_at - round(age_s * MILLISECONDS_PER_SECOND) if last_reading_at else 0
    limit_ms = round(sensor.stale_after_s * MILLISECONDS_PER_SECOND) + delay_ms
    state = _freshness(good_at, limit_ms, now_ms)
    if state == "fresh" and data == "stale":
        state = data  # what its device does not tell any more can't be known
    return SensorFreshness(sensor, state, good_at or None)
