"""Compares unlocks, sales, readings and single-ness with the simulators' log; `verdict` compares events and presses."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.demo.holdings import Holdings, Readings
from cloud.meals.lifecycle import FINAL

SALES_OVER: Final = frozenset(state.value for state in FINAL)
COMPARED_READINGS_MAX: Final = 200_000
"""About five seconds of comparing; of more, the newest are compared (`telemetry_compared` says how many)."""


@dataclass(frozen=True, slots=True)
class Unlocks:
    """`opened`: rides of the asked that the cloud says began and the lock's own log confirms."""

    opened: int
    unproven: int
    """Rides the cloud says began, although the lock never opened for them."""


def compare_unlocks(asked: Iterable[str], holdings: Holdings, truth: Sequence[dict[str, Any]]) -> Unlocks:
    """`asked`: ids of the rides people got from the API."""
    opened = {line["facts"].get("command_id") for line in truth if line["what"] == "lock_opened"}
    begun = {ride.id: ride.command_id in opened for ride in holdings.rides if ride.begun}
    return Unlocks(sum(begun.get(ride_id, False) for ride_id in asked), sum(not proven for proven in begun.values()))


@dataclass(frozen=True, slots=True)
class Sales:
    """Of the purchases people made; the three last are faults."""

    delivered: int
    refunded: int
    undropped: int
    """The cloud says delivered, but no box fell."""
    unsettled: int
    """Over and paid for, with neither a box nor the money back; or called refunded while the money is gone."""
    unknown: int
    """The cloud does not know them."""


def compare_sales(asked: Sequence[str], holdings: Holdings, truth: Sequence[dict[str, Any]]) -> Sales:
    """`asked`: ids of the purchases people got from the API; everybody's purchases are looked at for faults."""
    dropped = {line["facts"].get("purchase_id") for line in truth if line["what"] == "box_dropped"}
    delivered, refunded, undropped, unsettled = set(), set(), 0, 0
    for purchase in holdings.purchases:
        if purchase.state == "delivered":
            if purchase.id in dropped:
                delivered.add(purchase.id)
            else:
                undropped += 1
        elif purchase.state == "refunded" and purchase.charged and purchase.net_fen == 0:
            refunded.add(purchase.id)
        elif purchase.state == "refunded" or (
            purchase.state in SALES_OVER and purchase.charged and purchase.net_fen != 0 and purchase.id not in dropped
        ):
            unsettled += 1
    known = {purchase.id for purchase in holdings.purchases}
    return Sales(
        len(delivered.intersection(asked)), len(refunded.intersection(asked)), undropped, unsettled,
        len(set(asked) - known),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How the series differs from the readings the hardware logged in full."""

    compared: int
    lost: int
    """Readings that left the hardware whole and are not in the series with the same values."""
    doubled: int
    """Points beyond the distinct readings, or of a moment at which nothing was read."""


def compare_telemetry(
    kind: str,
    truth: Sequence[dict[str, Any]],
    stored: Readings,
    until_ms: int,
    compared_max: int = COMPARED_READINGS_MAX,
) -> Telemetry:
    """For a kind whose simulator logs each reading with all its values and its moment `at`.

    A reading whose line was damaged may arrive or not. `until_ms`: later readings need not be there yet.
    """
    found = telemetry_differences(kind, truth, stored, until_ms, compared_max)
    return Telemetry(found.compared, len(found.lost), len(found.doubled))


@dataclass(frozen=True, slots=True)
class TelemetryDifferences:
    """The same by name: device and moment of each."""

    compared: int
    lost: Sequence[str]
    doubled: Sequence[str]


def telemetry_differences(
    kind: str,
    truth: Sequence[dict[str, Any]],
    stored: Readings,
    until_ms: int,
    compared_max: int = COMPARED_READINGS_MAX,
) -> TelemetryDifferences:
    """See `compare_telemetry`."""
    readings = [line for line in truth if line["kind"] == kind and line["what"] == "reading"]
    happened: dict[str, Counter[int]] = {}
    for line in readings:
        happened.setdefault(line["device_id"], Counter())[line["facts"]["at"]] += 1
    due = [line for line in readings if line["line"] == "intact" and line["facts"]["at"] <= until_ms][-compared_max:]
    lost = [f"{line['device_id']} at {line['facts']['at']}" for line in due if not is_stored(line, stored)]
    doubled = [
        f"{device_id} at {at_ms}"
        for device_id, by_moment in stored.items()
        for at_ms, points in by_moment.items()
        for _ in range(len(points) - happened.get(device_id, Counter())[at_ms])
    ]
    return TelemetryDifferences(len(due), lost, doubled)


def is_stored(line: Mapping[str, Any], stored: Readings) -> bool:
    """Whether a point of that moment has every value of the reading (a value that is null is no field)."""
    wanted = {name: value for name, value in line["facts"].items() if name != "at" and value is not None}
    points = stored.get(line["device_id"], {}).get(line["facts"]["at"], [])
    return any(all(name in point and point[name] == value for name, value in wanted.items()) for point in points)


def doubled_calls(holdings: Holdings) -> int:
    """Presses that were taken for more than one."""
    return _surplus(holdings.press_event_ids)


def doubled_orders(holdings: Holdings) -> int:
    """Orders beyond one per cause, and open ones beyond one per need of a device."""
    return _surplus(holdings.order_causes) + _surplus(holdings.open_order_needs)


def doubled_notices(notices: Sequence[Mapping[str, Any]]) -> int:
    """Notifications that would have made a phone ring twice for one thing.

    The same delivery again with the same content is none: its id lets the receiver drop it (a crash between
    sending and noting leaves no other way). Another content under that id is one, and so is a second
    delivery about one press; an escalation or an answer says something else.
    """
    return len(doubled_notice_names(notices))


def doubled_notice_names(notices: Sequence[Mapping[str, Any]]) -> list[str]:
    """See `doubled_notices`: which delivery or which page."""
    by_delivery: dict[str, str] = {}
    surplus = []
    for notice in notices:
        content = json.dumps(notice["notification"], sort_keys=True)
        if by_delivery.setdefault(notice["delivery_id"], content) != content:
            surplus.append(f"delivery {notice['delivery_id']}: twice, with different words")
    pages = Counter(
        (found["reference"], found["facts"]["event_id"])
        for found in map(json.loads, by_delivery.values())
        if found["kind_of"] == "call" and found["facts"].get("step") == "press"
    )
    for (call_id, event_id), count in pages.items():
        surplus += [f"call {call_id}: press {event_id} told {count} times"] * (count - 1)
    return surplus


def _surplus(names: Iterable[str]) -> int:
    return sum(count - 1 for count in Counter(names).values())
