"""Which readings a device promised to the series, and under which time stamps they are to be found there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.demo import outcomes
from cli.demo.holdings import Readings
from fleet.envelope import READINGS_PER_MESSAGE_MAX

LOGGED_IN_FULL: Final = "nursing_room"
STAMPED_WITHIN_MS: Final = 30_000
"""Business ms between a reading and its new stamp, besides the jump."""
STAMPED_LATE_MS: Final = 1_800_000
"""What an earlier boot read and nobody vouched for is put as late as it can have been: where the next boot began. So
long, at 20 business seconds a second, a host may be killed again and again before one of its starts is welcomed."""


@dataclass(frozen=True, slots=True)
class Window:
    """Real seconds in which an agent host promised nothing about the readings of its devices."""

    device_ids: Collection[str]
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class WrongClock:
    """Real seconds in which an agent host's clock was wrong; it then may stamp readings anew, or too late to be used.

    An agent that the cloud has not told the time believes its own clock rather than the hardware's, and one that a
    cloud with a wrong clock has told it believes that until it is told anew.
    """

    device_ids: Collection[str]
    from_s: float
    until_s: float
    by_ms: int


def promised(truth: Sequence[dict[str, Any]], windows: Sequence[Window]) -> list[dict[str, Any]]:
    """The log with the readings of those windows marked `unpromised`."""
    by_device: dict[str, list[Window]] = {}
    for window in windows:
        for device_id in window.device_ids:
            by_device.setdefault(device_id, []).append(window)
    return [
        {**line, "line": "unpromised"}
        if line["what"] == "reading"
        and any(one.from_s <= line["real_s"] <= one.until_s for one in by_device.get(line["device_id"], ()))
        else line
        for line in truth
    ]


def restamped(
    truth: Sequence[dict[str, Any]], readings: Readings, wrong_clocks: Sequence[WrongClock],
    refused: Mapping[str, Sequence[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The log with those readings at their new moment that an agent with a wrong clock stamped anew.

    Each is found again by its values, as a point of about that moment. What the cloud refused for its time stamp,
    because one of both clocks was wrong, is found by its values in the quarantine (`refused`): it was kept for people
    and not promised to the series. A point or a refused reading proves one reading; what is found nowhere stays.
    """
    by_device: dict[str, list[WrongClock]] = {}
    for clock in wrong_clocks:
        for device_id in clock.device_ids:
            by_device.setdefault(device_id, []).append(clock)
    refused = refused or {}
    own = {(device_id, one.get("at")) for device_id, lines in refused.items() for one in lines}
    logged: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in truth:
        if _is_compared(line):
            logged.setdefault((line["device_id"], line["facts"]["at"]), []).append(line)
    # Values repeat: a refused reading under its own stamp proves that very line, and no other.
    left = {name: [one for one in lines if (name, one.get("at")) not in logged] for name, lines in refused.items()}
    taken: set[tuple[str, int, int]] = set()
    others = {name: _others(name, stored, logged) for name, stored in readings.items()}
    found = list(truth)
    # Values repeat: what was promised takes its point before what perhaps never arrived.
    for index, line in sorted(enumerate(truth), key=lambda entry: entry[1]["line"] != "intact"):
        device_id = line["device_id"]
        if not _is_compared(line) or outcomes.is_stored(line, readings):
            continue
        if (device_id, line["facts"]["at"]) in own:
            found[index] = {**line, "line": "unpromised"}
        else:
            found[index] = _restamped(line, others.get(device_id, {}), by_device.get(device_id, ()), left, taken)
    return found


def _is_compared(line: Mapping[str, Any]) -> bool:
    return bool(line["what"] == "reading" and line["kind"] == LOGGED_IN_FULL)


def _others(
    device_id: str,
    stored: Mapping[int, list[dict[str, Any]]],
    logged: Mapping[tuple[str, int], Sequence[dict[str, Any]]],
) -> dict[int, list[dict[str, Any]]]:
    """Points by moment without those that have stamp and values of a logged line: those are that line's."""
    found = {}
    for at_ms, points in stored.items():
        lines = logged.get((device_id, at_ms), ())
        rest = [point for point in points if not any(_has_values(point, line) for line in lines)]
        if rest:
            found[at_ms] = rest
    return found


def _restamped(
    line: dict[str, Any], stored: dict[int, list[dict[str, Any]]], clocks: Sequence[WrongClock],
    refused: dict[str, list[dict[str, Any]]], taken: set[tuple[str, int, int]],
) -> dict[str, Any]:  # fmt: skip
    device_id, at_ms = line["device_id"], line["facts"]["at"]
    moves_ms = [at_ms + one.by_ms for one in clocks if one.from_s <= line["real_s"] <= one.until_s]
    moves_ms += [at_ms] if moves_ms else []  # bounded between times of which one was wrong
    for moment in sorted(stored) if moves_ms else ():
        if not any(-STAMPED_WITHIN_MS <= moment - moved_ms <= STAMPED_LATE_MS for moved_ms in moves_ms):
            continue
        for number, point in enumerate(stored[moment]):
            if (device_id, moment, number) not in taken and _has_values(point, line):
                taken.add((device_id, moment, number))
                return {**line, "facts": {**line["facts"], "at": moment}}
    for one in refused.get(device_id, ()):
        if _has_values(one, line):
            refused[device_id].remove(one)
            return {**line, "line": "unpromised"}
    return line


def without_evicted(
    truth: Sequence[dict[str, Any]], readings: Readings, evicted: Mapping[str, int], full_until_s: float
) -> list[dict[str, Any]]:
    """A full disk makes telemetry give way; the device tells the cloud which messages are gone: so many and no more.

    How many readings each held is not told, so each excuses as many as a message can hold.
    """
    left = {device_id: count * READINGS_PER_MESSAGE_MAX for device_id, count in evicted.items()}
    kept = []
    for line in truth:
        if (
            line["what"] == "reading" and line["kind"] == LOGGED_IN_FULL and line["line"] == "intact"
            and line["real_s"] <= full_until_s and left.get(line["device_id"], 0) > 0
            and not outcomes.is_stored(line, readings)
        ):  # fmt: skip
            left[line["device_id"]] -= 1
            kept.append({**line, "line": "unpromised"})
        else:
            kept.append(line)
    return kept


def _has_values(found: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    wanted = {name: value for name, value in line["facts"].items() if name != "at" and value is not None}
    return all(name in found and found[name] == value for name, value in wanted.items())
