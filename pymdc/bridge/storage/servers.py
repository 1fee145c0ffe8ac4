"""Opens the database on a server; what that needs is an extra."""

from __future__ import annotations

import sqlalchemy as sa

from pymdc.bridge.errors import UnavailableError
from pymdc.bridge.settings import LANES
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.schema import MigrationError, OtherSchemaError


def open_postgres(url: str, password: str | None, *, existing: bool = False) -> Database:
    """Open the PostgreSQL database *url*; OSError if it can't be used.

    An *existing* one is neither created nor brought forward.
    """
    try:
        from pymdc.bridge.storage.postgres import PostgresDatabase
    except ImportError as error:
        raise OSError(
            f"PostgreSQL needs the extra: pip install '.[bridge,postgres]' ({error})"
        ) from None
    parsed = sa.make_url(url)
    if password is not None:
        parsed = parsed.set(password=password)
    shown = parsed.set(password=None, query={}).render_as_string()  # which may hold another one
    try:
        return PostgresDatabase(parsed, lanes=LANES, existing=existing)
    except (MigrationError, OtherSchemaError, UnavailableError) as error:
        raise OSError(f"{shown} can't be used: {error}") from None
    except sa.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        raise OSError(f"{shown} can't be used as a database: {reason}") from None
