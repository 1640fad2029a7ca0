"""Devices, what they are now and what they said; what ingest keeps about them."""

from sqlalchemy import Column, Index, Integer, LargeBinary, Text, UniqueConstraint, text

from cloud.tables.base import Id, Ms, Real, table

device = table(
    "device",
    Column("device_id", Text, primary_key=True),
    Column("kind", Text, nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("latitude", Real),
    Column("longitude", Real),
    Column("storage_id", Text),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("enrolled_at", Ms, nullable=False),
    Column("retired_at", Ms),
    Column("revoked_at", Ms),  # nobody may speak as this device until it is enrolled anew
    Column("revoked_reason", Text, nullable=False, server_default=""),
    Column("command_keys", Text, nullable=False, server_default=""),  # ids it last said it trusts, joined by spaces
    Column("site", Text, nullable=False, server_default=""),  # building or place it shares power and network with
)

twin = table(
    "twin",
    Column("device_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),  # JSON of the kind's State
    Column("desk", Text, nullable=False),  # JSON of its alarms, call and needs (cloud.rules)
    Column("generation", Integer, nullable=False),
    Column("emergency_seq", Ms, nullable=False),
    Column("event_seq", Ms, nullable=False),
    Column("telemetry_seq", Ms, nullable=False),
    Column("online", Integer, nullable=False),
    Column("link_boot_epoch", Ms, nullable=False),
    Column("link_connection", Ms, nullable=False),
    Column("link_changed_at", Ms, nullable=False),
    Column("last_heard_at", Ms, nullable=False),
    Column("last_reading_at", Ms, nullable=False),
    Column("next_due_at", Ms, index=True),
    Column("version", Ms, nullable=False),
    Column("presence", Text, nullable=False, server_default="{}"),  # JSON of its link and sensors (cloud.presence)
)

event = table(
    "event",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("boot_epoch", Ms, nullable=False),
    Column("seq", Ms, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("occurred_at", Ms, nullable=False),
    Column("received_at", Ms, nullable=False),
    Column("late", Integer, nullable=False, server_default=text("0")),
    Column("body", Text, nullable=False),
    Column("time_quality", Text, nullable=False, server_default=""),  # fleet.envelope.TimeQuality
    UniqueConstraint("device_id", "event_id"),
    Index("event_by_device", "device_id", "occurred_at"),
    Index(  # few of many: what restockers did, looked for by the history
        "event_of_visits",
        "received_at",
        sqlite_where=text("type = 'restocked'"),
        postgresql_where=text("type = 'restocked'"),
    ),
)

gap = table(  # ranges a device declared as evicted: lost on purpose, never silently
    "gap",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("lane", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("first_seq", Ms, nullable=False),
    Column("last_seq", Ms, nullable=False),
    Column("received_at", Ms, nullable=False),
    UniqueConstraint("device_id", "lane", "generation", "first_seq"),
)

quarantine = table(
    "quarantine",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("received_at", Ms, nullable=False, index=True),
    Column("topic", Text, nullable=False),
    Column("device_id", Text),
    Column("lane", Text),
    Column("seq", Ms),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)


spool_mark = table(  # per spool: how far telemetry is in the twins, and how far in the series
    "spool_mark",
    Column("spool", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # `twin` or `series`
    Column("position", Ms, nullable=False),
)

shard_lease = table(
    "shard_lease",
    Column("shard", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", Ms, nullable=False),
    Column("lease_until", Ms, nullable=False),  # real ms, not business time
)

intent = table(  # people's acts on their way into a lane
    "intent",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("answer", Text),
    Column("refused", Text),
    Column("done_at", Ms),
    Index("intent_waiting", "done_at"),
)

command = table(
    "command",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("arguments", Text, nullable=False),  # JSON of the kind's Command
    Column("actor", Text, nullable=False),
    Column("issued_at", Ms, nullable=False),
    Column("not_after", Ms, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("status", Text, nullable=False),  # `queued`, `sent`, then fleet.messages.ReplyStatus
    Column("reason", Text, nullable=False, server_default=""),
    Column("changed_at", Ms, nullable=False),
    Column("urgent", Integer, nullable=False, server_default=text("0")),  # feedback to who calls for help
    Index("command_by_device", "device_id", "issued_at"),
    Index("command_by_actor", "actor", "status"),
    Index("command_open", "status", "not_after"),
)
