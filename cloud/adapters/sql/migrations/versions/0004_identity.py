"""Claims, enrolments and certificates; devices that are revoked.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lead the schema forward."""
    op.create_table(
        "certificate",
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("issued_at", _MS, nullable=False),
        sa.Column("expires_at", _MS, nullable=False),
        sa.Column("proven_at", _MS, nullable=True),
        sa.Column("superseded_at", _MS, nullable=True),
        sa.Column("revoked_at", _MS, nullable=True),
        sa.Column("revoked_reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("serial"),
        sa.UniqueConstraint("device_id", "fingerprint"),
        sqlite_strict=True,
    )
    op.create_index("ix_certificate_expires_at", "certificate", ["expires_at"], unique=False)
    op.create_index("ix_certificate_revoked_at", "certificate", ["revoked_at"], unique=False)

    op.create_table(
        "claim",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("hardware_serial", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", _MS, nullable=False),
        sa.Column("expires_at", _MS, nullable=False),
        sa.Column("used_at", _MS, nullable=True),
        sa.Column("withdrawn_at", _MS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
        sqlite_strict=True,
    )
    op.create_index("ix_claim_device_id", "claim", ["device_id"], unique=False)
    op.create_index("ix_claim_hardware_serial", "claim", ["hardware_serial"], unique=False)

    op.create_table(
        "enrolment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("claim_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("hardware_serial", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("poll_hash", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("asked_at", _MS, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), server_default="", nullable=False),
        sa.Column("decided_at", _MS, nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("claim_id"),
        sqlite_strict=True,
    )
    op.create_index("enrolment_by_state", "enrolment", ["state", "asked_at"], unique=False)
    op.create_index("ix_enrolment_device_id", "enrolment", ["device_id"], unique=False)

    op.create_table(
        "renewal",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("asked_at", _MS, nullable=False),
        sa.Column("answered_at", _MS, nullable=True),
        sa.Column("refused", sa.Text(), server_default="", nullable=False),
        sa.Column("retry_after_s", _MS, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_renewal_answered_at", "renewal", ["answered_at"], unique=False)
    op.create_index("audit_by_object", "audit", ["object", "id"], unique=False)
    op.add_column("device", sa.Column("revoked_at", _MS, nullable=True))
    op.add_column("device", sa.Column("revoked_reason", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
