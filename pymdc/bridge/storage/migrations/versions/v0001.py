"""The schema before there were numbers: what bridges up to 0.2 created at each start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables that are missing: the first bridges did not have all of them."""
    inspector = sa.inspect(op.get_bind())
    have = set(inspector.get_table_names())
    if "used_nonces" not in have:
        op.create_table(
            "used_nonces",
            sa.Column("owner", sa.String, primary_key=True),
            sa.Column("nonce", sa.Float, primary_key=True),
            sa.Column("r", sa.String, primary_key=True),
        )
    if "nonces" not in have:
        op.create_table(
            "nonces",
            sa.Column("owner", sa.String, primary_key=True),
            sa.Column("nonce", sa.Float, primary_key=True),
        )
