"""Shelving, suppression, maintenance windows, incidents.

Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lead the schema forward."""
    op.add_column("alarm", sa.Column("received_at", _ms(), server_default=sa.text("0"), nullable=False))
    op.add_column("alarm", sa.Column("view", sa.Text(), server_default="shown", nullable=False))
    op.add_column("alarm", sa.Column("hidden_until", _ms(), nullable=True))
    op.add_column("alarm", sa.Column("hidden_by", sa.Text(), server_default="", nullable=False))
    op.add_column("alarm", sa.Column("hidden_reason", sa.Text(), server_default="", nullable=False))
    op.add_column("alarm", sa.Column("told_at", _ms(), nullable=True))
    op.create_index("alarm_by_time", "alarm", ["activated_at"], unique=False)
    op.add_column("alarm_transition", sa.Column("received_at", _ms(), server_default=sa.text("0"), nullable=False))
    op.add_column("device", sa.Column("site", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "incident",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), server_default="", nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("opened_at", _ms(), nullable=False),
        sa.Column("changed_at", _ms(), nullable=False),
        sa.Column("ended_at", _ms(), nullable=True),
        sa.Column("acknowledged_at", _ms(), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("alarm_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ix_incident_state", "incident", ["state"], unique=False)
    op.create_table(
        "incident_alarm",
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("alarm_id", sa.Text(), nullable=False),
        sa.Column("added_at", _ms(), nullable=False),
        sa.PrimaryKeyConstraint("incident_id", "alarm_id"),
        sqlite_strict=True,
    )
    op.create_index("incident_alarm_by_alarm", "incident_alarm", ["alarm_id"], unique=False)
    op.create_table(
        "incident_transition",
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("at", _ms(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("incident_id", "number"),
        sqlite_strict=True,
    )
    op.create_table(
        "hiding",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("window_id", sa.Text(), server_default="", nullable=False),
        sa.Column("one_shot", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("from_at", _ms(), nullable=False),
        sa.Column("until_at", _ms(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _ms(), nullable=False),
        sa.Column("ended_at", _ms(), nullable=True),
        sa.Column("ended_by", sa.Text(), server_default="", nullable=False),
        sa.Column("ended_reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ix_hiding_device_id", "hiding", ["device_id"], unique=False)
    op.create_index("ix_hiding_ended_at", "hiding", ["ended_at"], unique=False)
    op.create_table(
        "maintenance_window",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("from_at", _ms(), nullable=False),
        sa.Column("until_at", _ms(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", _ms(), nullable=False),
        sa.Column("ended_at", _ms(), nullable=True),
        sa.Column("ended_by", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )


def _ms() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
