"""Incidents (many alarms, one cause), and what people hid: shelves, maintenance windows, out of service."""

from sqlalchemy import Column, Index, Integer, Text, text

from cloud.tables.base import Ms, table

incident = table(
    "incident",
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False, index=True),  # fleet.incident.IncidentState
    Column("tier", Text, nullable=False),  # `page` or `inbox`, as its digests
    Column("site", Text, nullable=False, server_default=""),  # set while all of its devices share it
    Column("priority", Text, nullable=False),  # of its most urgent alarm
    Column("opened_at", Ms, nullable=False),
    Column("changed_at", Ms, nullable=False),
    Column("ended_at", Ms),
    Column("acknowledged_at", Ms),
    Column("acknowledged_by", Text),
    Column("alarm_count", Integer, nullable=False, server_default=text("0")),
    Column("open_count", Integer, nullable=False, server_default=text("0")),  # of them true now
)

incident_alarm = table(
    "incident_alarm",
    Column("incident_id", Text, primary_key=True),
    Column("alarm_id", Text, primary_key=True),
    Column("added_at", Ms, nullable=False),
    Index("incident_alarm_by_alarm", "alarm_id"),
)

incident_transition = table(
    "incident_transition",
    Column("incident_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False),
)

hiding = table(  # one row per act that hides alarms of one device, kept for ever
    "hiding",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("key", Text, nullable=False),  # of the alarm; empty: all alarms of the device
    Column("form", Text, nullable=False),  # `shelf`, `window`, `out_of_service`
    Column("window_id", Text, nullable=False, server_default=""),
    Column("one_shot", Integer, nullable=False, server_default=text("0")),
    Column("from_at", Ms, nullable=False),
    Column("until_at", Ms),  # None: until somebody puts it into service again
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("ended_at", Ms, index=True),
    Column("ended_by", Text, nullable=False, server_default=""),
    Column("ended_reason", Text, nullable=False, server_default=""),
)

maintenance_window = table(  # what a person planned; `hiding` has its devices
    "maintenance_window",
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # `device`, `kind`, `site`
    Column("target", Text, nullable=False),
    Column("from_at", Ms, nullable=False),
    Column("until_at", Ms, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("ended_at", Ms),  # ended early
    Column("ended_by", Text, nullable=False, server_default=""),
)
