"""Urgent commands, and the command keys that devices say they trust.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lead the schema forward."""
    op.add_column("command", sa.Column("urgent", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index("command_by_actor", "command", ["actor", "status"], unique=False)
    op.add_column("device", sa.Column("command_keys", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """There is no way back: restore the backup that was made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
