"""Compares what the simulators did with what the cloud holds. Nothing here is assumed: every figure is counted.

Truth is the simulators' own log, written before an agent could see what happened. The cloud's side is read
through its API (events, orders, alarms, fleet) and from its series store; "notified" is the receiver's log.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PRESSED: Final = "pressed"


@dataclass(frozen=True, slots=True)
class Truths:
    """The part of the simulators' log that counts: everything up to `until_ms` that hardware reports as an event."""

    by_event_id: dict[str, dict[str, Any]]
    presses: dict[str, dict[str, Any]]


def truths_of(lines: Sequence[dict[str, Any]], until_ms: int) -> Truths:
    """Events and presses among the log's lines, by event id."""
    events = {line["event_id"]: line for line in lines if line["event_id"] and line["at_ms"] <= until_ms}
    presses = {event_id: line for event_id, line in events.items() if line["what"] == PRESSED}
    return Truths(events, presses)


def missing_events(truths: Truths, stored: Sequence[dict[str, Any]]) -> set[str]:
    """Event ids that happened and are not in the cloud."""
    return set(truths.by_event_id) - {row["event_id"] for row in stored}


def doubled_events(all_truth_ids: set[str], stored: Sequence[dict[str, Any]]) -> list[str]:
    """Event ids the cloud holds more than once, or that never happened."""
    counted = Counter(row["event_id"] for row in stored)
    return [event_id for event_id, count in counted.items() if count > 1 or event_id not in all_truth_ids]


def notified_presses(truths: Truths, notices: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Event id of each press that reached the receiver → real ms from the button's edge to its 2xx."""
    latencies: dict[str, float] = {}
    for notice in notices:
        event_id = notice["notification"]["facts"].get("event_id", "")
        press = truths.presses.get(event_id)
        if press is not None and event_id not in latencies:
            latencies[event_id] = (notice["accepted_s"] - press["real_s"]) * 1000
    return latencies


_FAULTS: Final = {
    "lost_events": "events were lost",
    "doubled_events": "events are in the cloud twice or never happened",
    "telemetry_lost": "readings are not in the series as they were read",
    "telemetry_doubled": "points are in the series twice or were never read",
    "unlocks_unproven": "rides began although the lock never opened",
    "sales_undropped": "sales are called delivered, but no box fell",
    "sales_unsettled": "sales were paid for and brought neither a meal nor the money back",
    "sales_unknown": "purchases are not known to the cloud",
    "doubled_calls": "presses were taken for more than one",
    "doubled_orders": "work orders were made twice",
    "doubled_notices": "notifications were delivered twice",
    "ledger_problems": "things in the ledger do not add up",
    "edge_pending": "messages of the edge were not committed in time",
}
"""Figures that must be zero."""


def complaints(figures: Mapping[str, Any], devices: int, *, presses_due: bool = False) -> list[str]:
    """What is wrong, in words; nothing means that the run was good.

    `devices`: how many there are; `presses_due`: it ran so long that somebody must have pressed.
    """
    found = []
    if figures["devices_online"] < devices:
        found.append(f"only {figures['devices_online']} of {devices} devices were online at the end")
    if figures["calls_notified"] < figures["calls_pressed"]:
        found.append(f"{figures['calls_pressed'] - figures['calls_notified']} presses were not notified")
    if presses_due and not figures["calls_pressed"]:
        found.append("nobody pressed: nothing was proven about calls")
    found += [f"{figures[name]} {words}" for name, words in _FAULTS.items() if figures[name]]
    if figures["series_behind"]:
        found.append("the series did not catch up in time")
    return found


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and max; None of nothing."""
    if not values:
        return {"p50": None, "p99": None, "max": None}
    ordered = sorted(values)
    return {
        "p50": round(quantile(ordered, 0.5), 1),
        "p99": round(quantile(ordered, 0.99), 1),
        "max": round(ordered[-1], 1),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of sorted values: a value that was really measured."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
