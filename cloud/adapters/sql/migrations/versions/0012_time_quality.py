"""How sure an event's time is: devices without a battery clock, started without the cloud.

Revision 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lead the schema forward."""
    op.add_column("event", sa.Column("time_quality", sa.Text(), server_default="", nullable=False))
