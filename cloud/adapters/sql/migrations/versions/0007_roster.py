"""Crews, skills, shifts, and what is handed over from one to the next.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REAL = sa.Float(53).with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    _crews()
    _shifts()
    op.create_table(
        "duty_handover",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("left_by", sa.Text(), nullable=False),
        sa.Column("left_at", _MS, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("open_items", sa.Text(), nullable=False),
        sa.Column("confirmed_by", sa.Text(), nullable=True),
        sa.Column("confirmed_at", _MS, nullable=True),
        sa.ForeignKeyConstraint(["left_by"], ["person.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("duty_handover_by_time", "duty_handover", ["left_at"], unique=False)

    op.create_table(
        "duty_finding",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("from_at", _MS, nullable=False),
        sa.Column("until_at", _MS, nullable=False),
        sa.Column("announced_at", _MS, nullable=False),
        sa.Column("reminded_at", _MS, nullable=True),
        sa.Column("begun_at", _MS, nullable=True),
        sa.Column("ended_at", _MS, nullable=True),
        sa.PrimaryKeyConstraint("what", "tier", "person_id", "from_at"),
        sqlite_strict=True,
    )

    op.create_table(
        "calendar_feed",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("made_at", _MS, nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("person_id"),
        sa.UniqueConstraint("token_hash"),
        sqlite_strict=True,
    )


def _crews() -> None:
    op.create_table(
        "crew",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("latitude", _REAL, nullable=False),
        sa.Column("longitude", _REAL, nullable=False),
        sa.Column("vehicle_capacity", sa.Integer(), nullable=False),
        sa.Column("created_at", _MS, nullable=False),
        sa.CheckConstraint("vehicle_capacity >= 0", name="crew_capacity_positive"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "crew_member",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("crew_id", sa.Text(), nullable=True),
        sa.Column("skills", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.ForeignKeyConstraint(["crew_id"], ["crew.id"]),
        sa.PrimaryKeyConstraint("person_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_crew_member_crew_id", "crew_member", ["crew_id"], unique=False)


def _shifts() -> None:
    op.create_table(
        "duty_plan",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=True),
        sa.Column("crew_id", sa.Text(), nullable=True),
        sa.Column("calendar", sa.Text(), nullable=False),
        sa.Column("expanded_until", _MS, nullable=False),
        sa.Column("created_at", _MS, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("ended_at", _MS, nullable=True),
        sa.CheckConstraint("(person_id IS NULL) <> (crew_id IS NULL)", name="duty_plan_of_one"),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.ForeignKeyConstraint(["crew_id"], ["crew.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ix_duty_plan_person_id", "duty_plan", ["person_id"], unique=False)
    op.create_index("ix_duty_plan_crew_id", "duty_plan", ["crew_id"], unique=False)

    op.create_table(
        "shift",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("crew_id", sa.Text(), nullable=True),
        sa.Column("from_at", _MS, nullable=False),
        sa.Column("until_at", _MS, nullable=False),
        sa.Column("stands_in_for", sa.Text(), nullable=True),
        sa.CheckConstraint("until_at > from_at", name="shift_lasts"),
        sa.CheckConstraint("tier IN ('on_call', 'second_crew', 'duty_manager')", name="shift_tier_known"),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ix_shift_plan_id", "shift", ["plan_id"], unique=False)
    op.create_index("shift_by_tier", "shift", ["tier", "from_at", "until_at", "person_id"], unique=False)
    op.create_index("shift_by_person", "shift", ["person_id", "from_at"], unique=False)


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
