"""Prometheus metrics of the data's way. Names end in their unit; counters in `_total`."""

from typing import Any, Final

from prometheus_client import Counter, Histogram

MESSAGES: Final = Counter("fleet_messages_total", "Messages taken from devices", ["lane"])
QUARANTINED: Final = Counter("fleet_quarantined_total", "Messages set aside with their reason")
DUPLICATES: Final = Counter("fleet_duplicates_total", "Messages that were committed before and came again")
HOLES: Final = Counter(
    "fleet_holes_total", "Messages that were not the next of their lane; the device was asked to go back"
)
EVICTED: Final = Counter("fleet_evicted_total", "Messages that devices declared as evicted")
STALLS: Final = Counter("fleet_stalls_total", "Rounds of the pipeline that came so late that silence was not counted")
COMMITS: Final = Counter("fleet_commits_total", "SQL commits of the pipeline")
COMMIT_SECONDS: Final = Counter("fleet_commit_seconds_total", "Real seconds the pipeline waited for its SQL commits")
SQL_CONFLICTS: Final = Counter(
    "fleet_sql_conflicts_total", "Transactions on PostgreSQL that ran again because another one came in between"
)
SQL_RETRIES: Final = Counter(
    "fleet_sql_retries_total", "Transactions tried again because the database was away, locked or full"
)
SIGNALS_DROPPED: Final = Counter(
    "fleet_signals_dropped_total", "Live changes that other processes were not told one by one; they load again"
)
SPOOL_REFUSED: Final = Counter(
    "fleet_spool_refused_total", "Telemetry messages the spool did not take; devices keep them"
)
COMMANDS_REFUSED: Final = Counter(
    "fleet_commands_refused_total", "Commands not taken because too many wait for their end", ["bound"]
)
COMMANDS_ENDED: Final = Counter(
    "fleet_commands_ended_total", "Commands that ended, by status and reason", ["status", "reason"]
)
NOTIFY_SECONDS: Final = Histogram(
    "fleet_press_to_notified_seconds",
    "Emergency received to notification accepted",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 30),
)

_TELEMETRY = MESSAGES.labels("telemetry")
_EVENT = MESSAGES.labels("event")
_OTHER = MESSAGES.labels("other")


def observe(intake: Any) -> None:
    """Count one committed batch (`cloud.ingest.intake.Intake`)."""
    if intake.folded:
        _TELEMETRY.inc(len(intake.folded))
    if intake.events:
        _EVENT.inc(len(intake.events))
    if intake.heard:
        _OTHER.inc(len(intake.heard))
    if intake.quarantined:
        QUARANTINED.inc(len(intake.quarantined) + intake.quarantined_uncounted)
    if intake.duplicates:
        DUPLICATES.inc(intake.duplicates)
    if intake.holes:
        HOLES.inc(intake.holes)
    for gap in intake.gaps:
        EVICTED.inc(gap.last_seq - gap.first_seq + 1)
