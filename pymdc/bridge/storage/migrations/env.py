"""Run by Alembic: the steps run in the transaction of the connection that the bridge gives."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
