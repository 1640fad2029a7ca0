"""How far the history is in the time series; steps of rides and commands, which were overwritten until now.

Revision 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

from cloud.tables.history import history_statements

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    op.create_table(
        "history_mark",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", _MS, nullable=False),
        sa.Column("pending", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "history_sample",
        sa.Column("id", _MS, autoincrement=True, nullable=False),
        sa.Column("at", _MS, nullable=False),
        sa.Column("points", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "ride_step",
        sa.Column("id", _MS, autoincrement=True, nullable=False),
        sa.Column("ride_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("flagged", sa.Text(), nullable=False),
        sa.Column("at", _MS, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ride_step_by_time", "ride_step", ["at"], unique=False)
    op.create_index(
        "event_of_visits",
        "event",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("type = 'restocked'"),
        postgresql_where=sa.text("type = 'restocked'"),
    )
    op.create_table(
        "command_step",
        sa.Column("id", _MS, autoincrement=True, nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("issued_at", _MS, nullable=False),
        sa.Column("at", _MS, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("command_step_by_time", "command_step", ["at"], unique=False)
    for statement in history_statements(op.get_bind().dialect.name):
        op.execute(sa.text(statement))


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
