"""The figures of a demo: the simulators' log, what people were told, and what the cloud holds, side by side."""

from collections.abc import Sequence
from typing import Any, Final

from cli.demo import holdings, outcomes, people, verdict
from cli.demo.stage import Stage
from fleet.clock import MILLISECONDS_PER_SECOND

LOGGED_IN_FULL: Final = "nursing_room"
"""The kind whose simulator logs each reading with every value; its readings are compared one by one."""
READINGS_DUE_WITHIN_S: Final = 60.0
"""Business seconds within which a reading leaves the agent; later ones need not be in the series."""
PRESS_WITHIN_BUSINESS_S: Final = 300.0
"""After so long a busy noon somebody must have pressed: 30 s at the usual speed."""


def count(
    scene: Stage, truth: Sequence[dict[str, Any]], tally: people.Tally, *, stored: Sequence[dict[str, Any]],
    notices: Sequence[dict[str, Any]], until_ms: int,
) -> dict[str, Any]:  # fmt: skip
    """Compare. `stored`: the cloud's events; `notices`: the receiver's log; `until_ms`: when the world stood still."""
    truths = verdict.truths_of(truth, until_ms)
    latencies = verdict.notified_presses(truths, notices)
    held = holdings.read_holdings(scene.state_file)
    unlocks = outcomes.compare_unlocks(tally.rides, held, truth)
    sales = outcomes.compare_sales(tally.purchases, held, truth)
    telemetry = outcomes.compare_telemetry(
        LOGGED_IN_FULL, truth, holdings.read_readings(scene.series_file, LOGGED_IN_FULL),
        until_ms - round(READINGS_DUE_WITHIN_S * MILLISECONDS_PER_SECOND),
    )  # fmt: skip
    waits = sorted(tally.unlock_ms)
    all_ids = {line["event_id"] for line in truth if line["event_id"]}
    return {
        "telemetry_compared": telemetry.compared,
        "telemetry_lost": telemetry.lost,
        "telemetry_doubled": telemetry.doubled,
        "events": len(truths.by_event_id),
        "calls_pressed": len(truths.presses),
        "calls_notified": len(latencies),
        "press_to_notified_ms": verdict.percentiles(list(latencies.values())),
        "unlocks": {
            "asked": tally.unlocks_asked,
            "opened": unlocks.opened,
            "ms_p95": round(verdict.quantile(waits, 0.95), 1) if waits else None,
        },
        "unlocks_refused": sum(tally.unlock_refusals.values()),
        "unlocks_unproven": unlocks.unproven,
        "sales": {"asked": tally.sales_asked, "delivered": sales.delivered, "refunded": sales.refunded},
        "sales_refused": sum(tally.sale_refusals.values()),
        "sales_undropped": sales.undropped,
        "sales_unsettled": sales.unsettled,
        "sales_unknown": sales.unknown,
        "ledger_problems": len(held.ledger_problems),
        "lost_events": len(verdict.missing_events(truths, stored)),
        "doubled_events": len(verdict.doubled_events(all_ids, stored)),
        "doubled_calls": outcomes.doubled_calls(held),
        "doubled_orders": outcomes.doubled_orders(held),
        "doubled_notices": outcomes.doubled_notices(notices),
    }
