"""The number of files in each bucket."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, and count the files that are there."""
    op.add_column("buckets", sa.Column("files", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE buckets SET files = (SELECT count(*) FROM files WHERE files.bucket = buckets.id)"
    )
