"""People, their sessions, what they did."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Text

from cloud.tables.base import Id, Ms, table

person = table(
    "person",
    Column("id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("language", Text, nullable=False, server_default="zh_CN"),
    Column("created_at", Ms, nullable=False),
    Column("disabled_at", Ms),
    CheckConstraint("role IN ('employee', 'crew', 'admin')", name="person_role_known"),
)

session = table(
    "session",
    Column("token_hash", Text, primary_key=True),
    Column("person_id", Text, ForeignKey("person.id"), nullable=False, index=True),
    Column("csrf_token", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("last_used_at", Ms, nullable=False),
    Column("expires_at", Ms, nullable=False),
)

audit = table(
    "audit",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Ms, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_by_object", "object", "id"),
)

idempotency = table(
    "idempotency",
    Column("person_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("status", Integer),
    Column("answer", Text),
)
