"""The schema of the database: created at once, or brought forward step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.storage.database import has_one_writer
from pymdc.bridge.storage.tables import metadata

NEWEST = "0004"
_FIRST = "0000"  # of a database without a number
_VERSIONS = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)
_log = logging.getLogger("pymdc.bridge")


class OtherSchemaError(Exception):
    """The database was written by another version of the bridge."""


class EmptyDatabaseError(OtherSchemaError):
    """The database has no tables."""


class MigrationError(Exception):
    """The database could not be brought forward, and is as it was."""


def prepare_schema(
    connection: sa.Connection, before_upgrade: Callable[[], object] = lambda: None
) -> None:
    """Create the tables, or bring those of an older version forward after *before_upgrade*.

    Raises `OtherSchemaError` if a newer version wrote the database, and `MigrationError` if a step
    fails; the caller then rolls back.
    """
    version = _version(connection)
    if version is None:
        for statement in _creation(f"{connection.dialect.name}+{connection.dialect.driver}"):
            connection.exec_driver_sql(statement)
        connection.execute(sa.insert(_VERSIONS).values(version_num=NEWEST))
    elif version > NEWEST:
        raise _newer(version)
    elif version < NEWEST:
        try:
            before_upgrade()
            _upgrade(connection)
        except Exception as error:  # also a row that an older version should not have accepted
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            raise MigrationError(
                f"it can't be brought from schema {version} to {NEWEST}: {reason}"
            ) from error
        _log.warning("the database was brought from schema %s to %s", version, NEWEST)


@lru_cache(maxsize=2)
def _creation(dialect: str) -> list[str]:
    """Return the statements that create the tables; to make them takes longer than to run them."""
    statements: list[str] = []

    def note(element: sa.schema.ExecutableDDLElement, *_: object, **__: object) -> None:
        statements.append(str(element.compile(dialect=engine.dialect)))

    engine = sa.create_mock_engine(f"{dialect}://", note)
    metadata.create_all(engine, checkfirst=False)
    _VERSIONS.create(engine, checkfirst=False)
    return statements


def check_schema(connection: sa.Connection, *, older: bool = False) -> None:
    """Raise `OtherSchemaError` if another version wrote the database; *older* ones may have."""
    version = _version(connection)
    if version is None:
        raise EmptyDatabaseError("it is empty")
    if version > NEWEST:
        raise _newer(version)
    if version < NEWEST and not older:
        raise OtherSchemaError(
            f"it has schema {version}; start the bridge, which brings it to {NEWEST}"
        )


def _newer(version: str) -> OtherSchemaError:
    return OtherSchemaError(
        f"it has schema {version}, and this version of the bridge knows none above {NEWEST}"
    )


def _version(connection: sa.Connection) -> str | None:
    """Return the number of the schema; None if the database is empty."""
    tables = sa.inspect(connection).get_table_names()
    if _VERSIONS.name in tables:
        return str(connection.execute(sa.select(_VERSIONS.c.version_num)).scalar_one())
    if tables and not has_one_writer(connection):  # on servers all versions have numbers
        raise OtherSchemaError(
            f"it has tables of another program, such as {min(tables)}; expected an empty database"
        )
    return _FIRST if tables else None


def _upgrade(connection: sa.Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # else it logs its plugins
    # Imported here: it takes 0.1 s, and hardly a start needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, NEWEST)
