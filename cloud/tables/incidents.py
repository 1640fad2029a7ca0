"""Alarms, emergency calls, work orders, and what people are told about them."""

from sqlalchemy import Column, Index, Integer, Text, UniqueConstraint, text

from cloud.tables.base import Id, Ms, table
from cloud.tables.crew_work import service_columns

alarm = table(
    "alarm",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("activated_at", Ms, nullable=False),
    Column("returned_at", Ms),
    Column("acknowledged_at", Ms),
    Column("acknowledged_by", Text),
    Column("changed_at", Ms, nullable=False),
    Column("received_at", Ms, nullable=False, server_default=text("0")),  # `activated_at` is the reading's own time
    Column("view", Text, nullable=False, server_default="shown"),  # fleet.incident.AlarmView
    Column("hidden_until", Ms),
    Column("hidden_by", Text, nullable=False, server_default=""),  # a person, or the key of the parent alarm
    Column("hidden_reason", Text, nullable=False, server_default=""),
    Column("told_at", Ms),  # when people were last told of it
    Index("alarm_by_time", "activated_at"),
)

alarm_transition = table(
    "alarm_transition",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("alarm_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("received_at", Ms, nullable=False, server_default=text("0")),  # by our clock; `at` is the reading's time
    UniqueConstraint("alarm_id", "event", "before", "at"),  # a repeated decision is seen here and changes nothing
)

call = table(
    "call",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("pressed_at", Ms, nullable=False),
    Column("received_at", Ms, nullable=False),
    Column("acknowledged_at", Ms),
    Column("acknowledged_by", Text),
    Column("attended_at", Ms),
    Column("cleared_at", Ms),
    Column("escalation", Integer, nullable=False, server_default=text("0")),
    Column("changed_at", Ms, nullable=False),
    Column("purpose", Text, nullable=False, server_default="help"),  # `help`, `test`, `synthetic`
)

call_transition = table(
    "call_transition",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("call_id", Text, nullable=False, index=True),
    Column("step", Text, nullable=False),  # press, acknowledge, attend, clear_at_origin, escalate
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("received_at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("event_id", Text, nullable=False),  # of the device's event; `escalation:<n>` for a step of the escalation
    UniqueConstraint("call_id", "step", "event_id", "at"),  # a repeated decision is seen here and changes nothing
)

work_order = table(
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
    Column("created_at", Ms, nullable=False),
    Column("due_at", Ms, nullable=False),  # to be fixed by
    Column("changed_at", Ms, nullable=False),
    *service_columns(),
)

work_order_transition = table(
    "work_order_transition",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("order_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),  # code, see cloud.dispatch.reasons
)

outbox = table(
    "outbox",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),
    Column("reference", Text, nullable=False, server_default="", index=True),  # call, alarm or order it speaks of
    Column("notification", Text, nullable=False),  # JSON of cloud.model.Notification
    Column("urgent", Integer, nullable=False),  # 1 = emergency, 2 = what became of one; 0 = all else
    Column("created_at", Ms, nullable=False),
    Column("available_at", Ms, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_token", Text),
    Column("lease_until", Ms),
    Column("delivered_at", Ms),
    Column("given_up_at", Ms),  # no longer to be delivered; `last_error` says why (`withdrawn: …`, `grouped: …`)
    Column("last_error", Text),
    Column("recipient", Text, nullable=False, server_default=""),  # a person's id; empty: all who read the channel
    Column("contact_id", Text, nullable=False, server_default=""),  # which of the person's contact points
    Column("step", Text, nullable=False, server_default=""),  # which notification of its reference this is
    Column("stage", Integer, nullable=False, server_default=text("0")),  # place in a person's order of channels
    Index("outbox_waiting", "delivered_at", "given_up_at", "urgent", "available_at"),
)

notice_burst = table(  # how many notices of one key came lately: what turns a mass drop into one incident
    "notice_burst",
    Column("tier", Text, primary_key=True),  # `page` or `inbox`
    Column("key", Text, primary_key=True),
    Column("short_at", Ms, nullable=False),
    Column("short_count", Integer, nullable=False),
    Column("long_at", Ms, nullable=False),
    Column("long_count", Integer, nullable=False),
    Column("flood_at", Ms),  # when the flood began that this key belongs to
)

inbox = table(  # the web inbox: what people on duty were told in the application
    "inbox",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("notification", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
)
