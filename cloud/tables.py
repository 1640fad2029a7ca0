"""The SQL schema, for SQLite (STRICT, WAL) and PostgreSQL alike. Times are business ms since the epoch, money is fen.

Migrations live in `adapters/sql/migrations`; a test holds them equal to this file.
"""

from typing import Final

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import event as sql_event
from sqlalchemy.types import TypeEngine

metadata = MetaData()

# SQLite makes a column the row id only for exactly INTEGER; PostgreSQL needs 64 bits.
_Id: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_Ms: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_Real: TypeEngine[float] = Float(53).with_variant(REAL(), "sqlite")


def _table(name: str, *items: Column[object] | Index | UniqueConstraint | CheckConstraint) -> Table:
    return Table(name, metadata, *items, sqlite_strict=True)


# --- devices and what they are now -----------------------------------------------------------------------------

device = _table(
    "device",
    Column("device_id", Text, primary_key=True),
    Column("kind", Text, nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("latitude", _Real),
    Column("longitude", _Real),
    Column("storage_id", Text),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("enrolled_at", _Ms, nullable=False),
    Column("retired_at", _Ms),
)

twin = _table(
    "twin",
    Column("device_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),  # JSON of the kind's State
    Column("desk", Text, nullable=False),  # JSON of its alarms, call and needs (cloud.rules)
    Column("generation", Integer, nullable=False),
    Column("emergency_seq", _Ms, nullable=False),
    Column("event_seq", _Ms, nullable=False),
    Column("telemetry_seq", _Ms, nullable=False),
    Column("online", Integer, nullable=False),
    Column("link_boot_epoch", _Ms, nullable=False),
    Column("link_connection", _Ms, nullable=False),
    Column("link_changed_at", _Ms, nullable=False),
    Column("last_heard_at", _Ms, nullable=False),
    Column("last_reading_at", _Ms, nullable=False),
    Column("next_due_at", _Ms, index=True),
    Column("version", _Ms, nullable=False),
)

event = _table(
    "event",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("device_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("boot_epoch", _Ms, nullable=False),
    Column("seq", _Ms, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("occurred_at", _Ms, nullable=False),
    Column("received_at", _Ms, nullable=False),
    Column("late", Integer, nullable=False, server_default=text("0")),
    Column("body", Text, nullable=False),
    UniqueConstraint("device_id", "event_id"),
    Index("event_by_device", "device_id", "occurred_at"),
)

gap = _table(  # ranges a device declared as evicted: lost on purpose, never silently
    "gap",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("lane", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("first_seq", _Ms, nullable=False),
    Column("last_seq", _Ms, nullable=False),
    Column("received_at", _Ms, nullable=False),
    UniqueConstraint("device_id", "lane", "generation", "first_seq"),
)

quarantine = _table(
    "quarantine",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("received_at", _Ms, nullable=False, index=True),
    Column("topic", Text, nullable=False),
    Column("device_id", Text),
    Column("lane", Text),
    Column("seq", _Ms),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# --- ingest bookkeeping ----------------------------------------------------------------------------------------

spool_mark = _table(  # per spool: how far telemetry is in the twins, and how far in the series
    "spool_mark",
    Column("spool", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # `twin` or `series`
    Column("position", _Ms, nullable=False),
)

shard_lease = _table(
    "shard_lease",
    Column("shard", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", _Ms, nullable=False),
    Column("lease_until", _Ms, nullable=False),  # real ms, not business time
)

intent = _table(  # people's acts on their way into a lane
    "intent",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("at", _Ms, nullable=False),
    Column("answer", Text),
    Column("refused", Text),
    Column("done_at", _Ms),
    Index("intent_waiting", "done_at"),
)

command = _table(
    "command",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("arguments", Text, nullable=False),  # JSON of the kind's Command
    Column("actor", Text, nullable=False),
    Column("issued_at", _Ms, nullable=False),
    Column("not_after", _Ms, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("status", Text, nullable=False),  # `queued`, `sent`, then fleet.messages.ReplyStatus
    Column("reason", Text, nullable=False, server_default=""),
    Column("changed_at", _Ms, nullable=False),
    Index("command_by_device", "device_id", "issued_at"),
    Index("command_open", "status", "not_after"),
)

# --- incidents and work ----------------------------------------------------------------------------------------

alarm = _table(
    "alarm",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("activated_at", _Ms, nullable=False),
    Column("returned_at", _Ms),
    Column("acknowledged_at", _Ms),
    Column("acknowledged_by", Text),
    Column("changed_at", _Ms, nullable=False),
)

alarm_transition = _table(
    "alarm_transition",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("alarm_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", _Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False),
    UniqueConstraint("alarm_id", "event", "before", "at"),  # a repeated decision is seen here and changes nothing
)

call = _table(
    "call",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("pressed_at", _Ms, nullable=False),
    Column("received_at", _Ms, nullable=False),
    Column("acknowledged_at", _Ms),
    Column("acknowledged_by", Text),
    Column("attended_at", _Ms),
    Column("cleared_at", _Ms),
    Column("escalation", Integer, nullable=False, server_default=text("0")),
    Column("changed_at", _Ms, nullable=False),
)

call_transition = _table(
    "call_transition",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("call_id", Text, nullable=False, index=True),
    Column("step", Text, nullable=False),  # press, acknowledge, attend, clear_at_origin, escalate
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", _Ms, nullable=False),
    Column("received_at", _Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("event_id", Text, nullable=False),  # of the device's event; `escalation:<n>` for a step of the escalation
    UniqueConstraint("call_id", "step", "event_id", "at"),  # a repeated decision is seen here and changes nothing
)

work_order = _table(
    "work_order",
    Column("id", Text, primary_key=True),
    Column("cause", Text, nullable=False, unique=True),  # exactly one order per cause, even under replay
    Column("device_id", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("skill", Text, nullable=False),
    Column("title_zh", Text, nullable=False),
    Column("title_en", Text, nullable=False),
    Column("instructions_zh", Text, nullable=False, server_default=""),
    Column("instructions_en", Text, nullable=False, server_default=""),
    Column("items", Text, nullable=False),  # JSON article → count
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("assigned_to", Text),
    Column("created_at", _Ms, nullable=False),
    Column("due_at", _Ms, nullable=False),
    Column("changed_at", _Ms, nullable=False),
)

work_order_transition = _table(
    "work_order_transition",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("order_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", _Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
)

outbox = _table(
    "outbox",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),
    Column("reference", Text, nullable=False, server_default="", index=True),  # call, alarm or order it speaks of
    Column("notification", Text, nullable=False),  # JSON of cloud.model.Notification
    Column("urgent", Integer, nullable=False),  # 1 = emergency, served first by workers of its own
    Column("created_at", _Ms, nullable=False),
    Column("available_at", _Ms, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_token", Text),
    Column("lease_until", _Ms),
    Column("delivered_at", _Ms),
    Column("given_up_at", _Ms),  # no longer to be delivered; `last_error` says why (`withdrawn: …`, `grouped: …`)
    Column("last_error", Text),
    Index("outbox_waiting", "delivered_at", "given_up_at", "urgent", "available_at"),
)

notice_burst = _table(  # how many notices of one key came lately: what turns a mass drop into one incident
    "notice_burst",
    Column("tier", Text, primary_key=True),  # `page` or `inbox`
    Column("key", Text, primary_key=True),
    Column("short_at", _Ms, nullable=False),
    Column("short_count", Integer, nullable=False),
    Column("long_at", _Ms, nullable=False),
    Column("long_count", Integer, nullable=False),
    Column("flood_at", _Ms),  # when the flood began that this key belongs to
)

inbox = _table(  # the web inbox: what people on duty were told in the application
    "inbox",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("notification", Text, nullable=False),
    Column("created_at", _Ms, nullable=False),
)

# --- people ----------------------------------------------------------------------------------------------------

person = _table(
    "person",
    Column("id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("language", Text, nullable=False, server_default="zh_CN"),
    Column("created_at", _Ms, nullable=False),
    Column("disabled_at", _Ms),
    CheckConstraint("role IN ('employee', 'crew', 'admin')", name="person_role_known"),
)

session = _table(
    "session",
    Column("token_hash", Text, primary_key=True),
    Column("person_id", Text, ForeignKey("person.id"), nullable=False, index=True),
    Column("csrf_token", Text, nullable=False),
    Column("created_at", _Ms, nullable=False),
    Column("last_used_at", _Ms, nullable=False),
    Column("expires_at", _Ms, nullable=False),
)

audit = _table(
    "audit",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("at", _Ms, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

idempotency = _table(
    "idempotency",
    Column("person_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("created_at", _Ms, nullable=False),
    Column("status", Integer),
    Column("answer", Text),
)

# --- money -----------------------------------------------------------------------------------------------------

ledger_account = _table(
    "ledger_account",
    Column("id", Text, primary_key=True),  # `wallet:<person>`, `sales`, `rides`, `funding`
    Column("balance_fen", _Ms, nullable=False, server_default=text("0")),
    Column("may_be_negative", Integer, nullable=False),
    CheckConstraint("may_be_negative = 1 OR balance_fen >= 0", name="ledger_balance_not_negative"),
)

ledger_transaction = _table(
    "ledger_transaction",
    Column("id", Text, primary_key=True),  # derived from its cause, so that a repeat is refused
    Column("cause", Text, nullable=False),
    Column("at", _Ms, nullable=False),
)

ledger_entry = _table(
    "ledger_entry",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("transaction_id", Text, ForeignKey("ledger_transaction.id"), nullable=False, index=True),
    Column("account_id", Text, ForeignKey("ledger_account.id"), nullable=False, index=True),
    Column("amount_fen", _Ms, nullable=False),  # debit positive, credit negative; a transaction sums to zero
)

# --- rides and meals -------------------------------------------------------------------------------------------

ride = _table(
    "ride",
    Column("id", Text, primary_key=True),
    Column("person_id", Text, nullable=False, index=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("command_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("asked_at", _Ms, nullable=False),
    Column("deadline_at", _Ms, nullable=False),
    Column("started_at", _Ms),
    Column("ended_at", _Ms),
    Column("fee_fen", _Ms),
    Column("reason", Text, nullable=False, server_default=""),
    Column("flagged", Text, nullable=False, server_default=""),
    Column("changed_at", _Ms, nullable=False),
    # One bike, one ride; one rider, one ride: kept by the database, whatever the code does.
    Index(
        "ride_one_per_bike",
        "device_id",
        unique=True,
        sqlite_where=text("state IN ('unlocking', 'riding')"),
        postgresql_where=text("state IN ('unlocking', 'riding')"),
    ),
    Index(
        "ride_one_per_person",
        "person_id",
        unique=True,
        sqlite_where=text("state IN ('unlocking', 'riding')"),
        postgresql_where=text("state IN ('unlocking', 'riding')"),
    ),
)

purchase = _table(
    "purchase",
    Column("id", Text, primary_key=True),
    Column("person_id", Text, nullable=False, index=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("sku", Text, nullable=False),
    Column("price_fen", _Ms, nullable=False),
    Column("command_id", Text, unique=True),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("asked_at", _Ms, nullable=False),
    Column("paid_at", _Ms),
    Column("delivered_at", _Ms),
    Column("refunded_at", _Ms),
    Column("deadline_at", _Ms, nullable=False),
    Column("changed_at", _Ms, nullable=False),
)

purchase_step = _table(
    "purchase_step",
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("purchase_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", _Ms, nullable=False),
)

# --- the ledger is append-only, whatever the code does ---------------------------------------------------------

APPEND_ONLY: Final = ("ledger_transaction", "ledger_entry")


def append_only_statements(dialect: str) -> list[str]:
    """Triggers that refuse UPDATE and DELETE on the tables of `APPEND_ONLY`; for `sqlite` or `postgresql`."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS {name}_no_{verb.lower()} BEFORE {verb} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
            for name in APPEND_ONLY
            for verb in ("UPDATE", "DELETE")
        ]
    refuse = (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $$"
    )
    return [
        refuse,
        *(
            f"CREATE OR REPLACE TRIGGER {name}_no_change BEFORE UPDATE OR DELETE ON {name} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            for name in APPEND_ONLY
        ),
    ]


@sql_event.listens_for(metadata, "after_create")
def _make_append_only(_target: object, connection: Connection, **_options: object) -> None:
    for statement in append_only_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
