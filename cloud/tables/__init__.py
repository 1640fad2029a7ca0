"""The SQL schema, for SQLite (STRICT, WAL) and PostgreSQL alike. Times are business ms since the epoch, money is fen.

Migrations live in `adapters/sql/migrations`; a test holds them equal to this package.
"""

from cloud.tables.alarm_desk import hiding, incident, incident_alarm, incident_transition, maintenance_window
from cloud.tables.base import metadata
from cloud.tables.crew_work import (
    crew_plan,
    crew_position,
    crew_round,
    crew_stop,
    device_code,
    order_note,
    order_photo,
    preventive_plan,
)
from cloud.tables.delivery import contact_point, delivery_attempt, notification_preference, personal_quota
from cloud.tables.devices import command, device, event, gap, intent, quarantine, shard_lease, spool_mark, twin
from cloud.tables.duty import calendar_feed, crew, crew_member, duty_finding, duty_handover, duty_plan, shift
from cloud.tables.history import FOLLOWED, command_step, history_mark, history_sample, ride_step
from cloud.tables.identity import certificate, claim, enrolment, renewal
from cloud.tables.incidents import (
    alarm,
    alarm_transition,
    call,
    call_transition,
    inbox,
    notice_burst,
    outbox,
    work_order,
    work_order_transition,
)
from cloud.tables.money import APPEND_ONLY, append_only_statements, ledger_account, ledger_entry, ledger_transaction
from cloud.tables.people import audit, idempotency, person, session
from cloud.tables.products import purchase, purchase_step, ride
from cloud.tables.supervision import proof_test, substitute_measure

__all__ = [
    "APPEND_ONLY",
    "FOLLOWED",
    "alarm",
    "alarm_transition",
    "append_only_statements",
    "audit",
    "calendar_feed",
    "call",
    "call_transition",
    "certificate",
    "claim",
    "command",
    "command_step",
    "contact_point",
    "crew",
    "crew_member",
    "crew_plan",
    "crew_position",
    "crew_round",
    "crew_stop",
    "delivery_attempt",
    "device",
    "device_code",
    "duty_finding",
    "duty_handover",
    "duty_plan",
    "enrolment",
    "event",
    "gap",
    "hiding",
    "history_mark",
    "history_sample",
    "idempotency",
    "inbox",
    "incident",
    "incident_alarm",
    "incident_transition",
    "intent",
    "ledger_account",
    "ledger_entry",
    "ledger_transaction",
    "maintenance_window",
    "metadata",
    "notice_burst",
    "notification_preference",
    "order_note",
    "order_photo",
    "outbox",
    "person",
    "personal_quota",
    "preventive_plan",
    "proof_test",
    "purchase",
    "purchase_step",
    "quarantine",
    "renewal",
    "ride",
    "ride_step",
    "session",
    "shard_lease",
    "shift",
    "spool_mark",
    "substitute_measure",
    "twin",
    "work_order",
    "work_order_transition",
]
