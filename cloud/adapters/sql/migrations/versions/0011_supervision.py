"""Proof tests and substitute measures of the emergency buttons; what a call is for; a lock on clearing calls.

Revision 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

from cloud.tables.supervision import call_guard_statements

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    op.add_column("call", sa.Column("purpose", sa.Text(), server_default="help", nullable=False))
    op.create_table(
        "proof_test",
        sa.Column("id", _MS, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", _MS, nullable=False),
        sa.Column("received_at", _MS, nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", "event_id"),
        sqlite_strict=True,
    )
    op.create_index("proof_test_by_device", "proof_test", ["device_id", "received_at"], unique=False)
    op.create_table(
        "substitute_measure",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("responsible", sa.Text(), nullable=False),
        sa.Column("from_at", _MS, nullable=False),
        sa.Column("until_at", _MS, nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("substitute_measure_by_device", "substitute_measure", ["device_id", "until_at"], unique=False)
    for statement in call_guard_statements(op.get_bind().dialect.name):
        op.execute(sa.text(statement))


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
