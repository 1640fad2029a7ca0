"""The SQL schema, for SQLite (STRICT, WAL) and PostgreSQL alike. Times are business ms since the epoch, money is fen.

Migrations live in `adapters/sql/migrations`; a test holds them equal to this package.
"""

from cloud.tables.base import metadata
from cloud.tables.devices import command, device, event, gap, intent, quarantine, shard_lease, spool_mark, twin
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

__all__ = [
    "APPEND_ONLY",
    "alarm",
    "alarm_transition",
    "append_only_statements",
    "audit",
    "call",
    "call_transition",
    "certificate",
    "claim",
    "command",
    "device",
    "enrolment",
    "event",
    "gap",
    "idempotency",
    "inbox",
    "intent",
    "ledger_account",
    "ledger_entry",
    "ledger_transaction",
    "metadata",
    "notice_burst",
    "outbox",
    "person",
    "purchase",
    "purchase_step",
    "quarantine",
    "renewal",
    "ride",
    "session",
    "shard_lease",
    "spool_mark",
    "twin",
    "work_order",
    "work_order_transition",
]
