"""Opens the database on a server; what that needs is an extra."""

from __future__ import annotations

import sqlalchemy as sa

from pymdc.bridge.errors import UnavailableError, missing
from pymdc.bridge.settings import LANES
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.schema import EmptyDatabaseError, MigrationError, OtherSchemaError


def shown_url(url: str) -> str:
    """Return the URL of a database without what may be secret in it, for people."""
    return sa.make_url(url).set(password=None, query={}).render_as_string()


def open_postgres(
    url: str, password: str | None, *, existing: bool = False, command: bool = False
) -> Database:
    """Open the PostgreSQL database *url*; OSError if it can't be used.

    An *existing* one is neither created nor brought forward; `EmptyDatabaseError` if it is empty.
    A *command* of an operator has as much time as it needs.
    """
    try:
        from pymdc.bridge.storage.postgres import PostgresDatabase
    except ImportError as error:
        raise OSError(missing(error, "bridge,postgres")) from None
    parsed = sa.make_url(url)
    if password is not None:
        parsed = parsed.set(password=password)
    shown = shown_url(url)
    try:
        return PostgresDatabase(parsed, lanes=LANES, existing=existing, command=command)
    except EmptyDatabaseError:
        raise
    except (MigrationError, OtherSchemaError, OSError) as error:
        raise OSError(f"{shown} can't be used: {error}") from None
    except (UnavailableError, sa.exc.SQLAlchemyError) as error:
        fault = error.__cause__ or error  # what the driver says; it may have been an answer
        raise OSError(f"{shown} can't be used: {' '.join(str(fault).split())}") from None
