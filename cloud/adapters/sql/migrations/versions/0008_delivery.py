"""Recipients of notifications, preferences, push subscriptions and the log of attempts.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    for name in ("recipient", "contact_id", "step"):
        op.add_column("outbox", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.add_column("outbox", sa.Column("stage", sa.Integer(), server_default=sa.text("0"), nullable=False))
    _people()
    _attempts()


def _people() -> None:
    op.create_table(
        "contact_point",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", _MS, nullable=False),
        sa.Column("verified_at", _MS, nullable=True),
        sa.Column("failing_since", _MS, nullable=True),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.Column("delivered_at", _MS, nullable=True),
        sa.Column("code_hash", sa.Text(), nullable=True),
        sa.Column("code_sent_at", _MS, nullable=True),
        sa.Column("code_tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("codes_sent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("channel IN ('push', 'chat', 'sms', 'voice', 'mail')", name="contact_point_channel_known"),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("person_id", "channel", "address"),
        sqlite_strict=True,
    )
    op.create_table(
        "notification_preference",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("channels", sa.Text(), nullable=False),
        sa.Column("quiet_from_minute", sa.Integer(), nullable=True),
        sa.Column("quiet_until_minute", sa.Integer(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("changed_at", _MS, nullable=False),
        sa.CheckConstraint(
            "(quiet_from_minute IS NULL) = (quiet_until_minute IS NULL)", name="quiet_hours_have_an_end"
        ),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("person_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "personal_quota",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("told_at", sa.Text(), nullable=False),
        sa.Column("digest_due_at", _MS, nullable=True),
        sa.Column("digest_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("digest", sa.Text(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("person_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_personal_quota_digest_due_at", "personal_quota", ["digest_due_at"], unique=False)


def _attempts() -> None:
    op.create_table(
        "delivery_attempt",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", _MS, nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("kind_of", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("urgent", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ix_delivery_attempt_at", "delivery_attempt", ["at"], unique=False)
    op.create_index("ix_delivery_attempt_delivery_id", "delivery_attempt", ["delivery_id"], unique=False)
    op.create_index("delivery_attempt_by_reference", "delivery_attempt", ["reference", "id"], unique=False)
    op.create_index("delivery_attempt_by_recipient", "delivery_attempt", ["recipient", "id"], unique=False)
    op.create_index("delivery_attempt_by_channel", "delivery_attempt", ["channel", "at"], unique=False)


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
