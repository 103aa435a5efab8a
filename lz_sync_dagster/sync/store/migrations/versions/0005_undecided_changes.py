"""changes of which nobody knows whether the feed told them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("feed_freshness", schema=None) as batch_op:
        batch_op.add_column(sa.Column("undecided", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
