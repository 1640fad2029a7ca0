"""Service levels, proofs, photos, preventive plans and rounds of the crews.

Revision 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL = sa.Float(53).with_variant(sa.REAL(), "sqlite")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    op.add_column("work_order", sa.Column("subject", sa.Text(), nullable=False, server_default=""))
    op.add_column("work_order", sa.Column("limit_ms", MS, nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("clock_from", MS, nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("acknowledge_by", MS))
    op.add_column("work_order", sa.Column("on_site_by", MS))
    op.add_column("work_order", sa.Column("paused_at", MS))
    op.add_column("work_order", sa.Column("paused_ms", MS, nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("told_overdue", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("told_nobody", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("acknowledged_at", MS))
    op.add_column("work_order", sa.Column("on_site_at", MS))
    op.add_column("work_order", sa.Column("done_at", MS))
    op.add_column("work_order", sa.Column("verify_by", MS))
    op.add_column("work_order", sa.Column("verified_at", MS))
    op.add_column("work_order", sa.Column("scanned_at", MS))
    op.add_column("work_order", sa.Column("scanned_by", sa.Text()))
    op.add_column("work_order", sa.Column("reopened", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("work_order", sa.Column("repeat_of", sa.Text()))
    op.add_column("work_order", sa.Column("to_latitude", REAL))
    op.add_column("work_order", sa.Column("to_longitude", REAL))
    op.add_column("work_order", sa.Column("to_name", sa.Text(), nullable=False, server_default=""))
    op.create_index(op.f("ix_work_order_subject"), "work_order", ["subject"], unique=False)
    op.add_column("work_order_transition", sa.Column("reason", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "order_note",
        sa.Column("id", ID, nullable=False, autoincrement=True),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("at", MS, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "order_photo",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("at", MS, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.UniqueConstraint("order_id", "hash"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "device_code",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.UniqueConstraint("code"),
        sa.Column("made_at", MS, nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "crew_position",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("latitude", REAL, nullable=False),
        sa.Column("longitude", REAL, nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("at", MS, nullable=False),
        sa.PrimaryKeyConstraint("person_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "preventive_plan",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("skill", sa.Text(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("instructions_zh", sa.Text(), nullable=False, server_default=""),
        sa.Column("instructions_en", sa.Text(), nullable=False, server_default=""),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("period_days", sa.Integer(), nullable=False),
        sa.Column("proves", sa.Text(), nullable=False, server_default=""),
        sa.Column("enabled", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("changed_at", MS, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "crew_plan",
        sa.Column("id", ID, nullable=False, autoincrement=True),
        sa.Column("made_at", MS, nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("solver", sa.Text(), nullable=False),
        sa.Column("solve_ms", MS, nullable=False),
        sa.Column("moved", sa.Integer(), nullable=False),
        sa.Column("unassigned", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "crew_round",
        sa.Column("plan_id", MS, nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("starts_at", MS, nullable=False),
        sa.Column("ends_at", MS, nullable=False),
        sa.Column("distance_m", sa.Integer(), nullable=False),
        sa.Column("travel_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", "person_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "crew_stop",
        sa.Column("plan_id", MS, nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("latitude", REAL, nullable=False),
        sa.Column("longitude", REAL, nullable=False),
        sa.Column("arrives_at", MS, nullable=False),
        sa.Column("leaves_at", MS, nullable=False),
        sa.Column("late", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", "person_id", "position"),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_order_note_order_id"), "order_note", ["order_id"], unique=False)
    op.create_index(op.f("ix_order_photo_order_id"), "order_photo", ["order_id"], unique=False)
    op.create_index("crew_stop_by_order", "crew_stop", ["order_id", "plan_id"], unique=False)


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
