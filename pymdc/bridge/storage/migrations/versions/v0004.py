"""Which installation the database and the store belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table; the bridge writes its row."""
    op.create_table(
        "installation",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("stored", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("swept", sa.BigInteger),
    )
