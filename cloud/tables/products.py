"""Rides and meals."""

from sqlalchemy import Column, Index, Text, text

from cloud.tables.base import Id, Ms, table

ride = table(
    "ride",
    Column("id", Text, primary_key=True),
    Column("person_id", Text, nullable=False, index=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("command_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("asked_at", Ms, nullable=False),
    Column("deadline_at", Ms, nullable=False),
    Column("started_at", Ms),
    Column("ended_at", Ms),
    Column("fee_fen", Ms),
    Column("reason", Text, nullable=False, server_default=""),
    Column("flagged", Text, nullable=False, server_default=""),
    Column("changed_at", Ms, nullable=False),
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

purchase = table(
    "purchase",
    Column("id", Text, primary_key=True),
    Column("person_id", Text, nullable=False, index=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("sku", Text, nullable=False),
    Column("price_fen", Ms, nullable=False),
    Column("command_id", Text, unique=True),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("asked_at", Ms, nullable=False),
    Column("paid_at", Ms),
    Column("delivered_at", Ms),
    Column("refunded_at", Ms),
    Column("deadline_at", Ms, nullable=False),
    Column("changed_at", Ms, nullable=False, index=True),
)

purchase_step = table(
    "purchase_step",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("purchase_id", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Ms, nullable=False),
)
