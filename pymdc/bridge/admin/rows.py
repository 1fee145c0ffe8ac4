"""The rows of a bridge, from one database to another, whatever kind either is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from pymdc._text import printable
from pymdc.bridge.admin.output import Progress
from pymdc.bridge.admin.storage import CommandError, one_line
from pymdc.bridge.settings import ROWS_AT_ONCE, SHOWN_ROWS
from pymdc.bridge.storage.database import Database, has_one_writer
from pymdc.bridge.storage.tables import installation, metadata, pointers, resets, tokens, uploads

# What is good for minutes, and once; and each place has an id of its own.
_LEFT = {tokens, pointers, resets, uploads, installation}
MOVED = [table for table in metadata.sorted_tables if table not in _LEFT]
_NUL, _INSTEAD = "\0", "\ufffd"
_Row = dict[str, Any]


@contextmanager
def snapshot(database: Database) -> Iterator[sa.Connection]:
    """Give a connection that sees one state of the database, that of its first statement."""
    if has_one_writer(database.engine):
        with database.read() as connection:
            yield connection
        return
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with database.engine.connect() as connection:
        yield connection.execution_options(**options)


def count_rows(connection: sa.Connection) -> dict[str, int]:
    """Return how many rows each table has that moves."""
    count = sa.select(sa.func.count())
    return {
        table.name: connection.execute(count.select_from(table)).scalar_one() for table in MOVED
    }


def first_filled(connection: sa.Connection) -> str | None:
    """Return the name of a table that has rows; None if there is none."""
    for table in MOVED:
        if connection.execute(sa.select(sa.exists().select_from(table))).scalar():
            return table.name
    return None


def copy_rows(
    source: sa.Connection, target: sa.Connection, progress: Progress, *, replace_nul: bool = False
) -> dict[str, int]:
    """Copy the rows of all tables that move into an empty database; return how many there are.

    Raises `CommandError` if *target* has another number of rows in the end, and if it refuses one.
    With *replace_nul*, U+FFFD takes the place of NUL in texts.
    """
    expected = count_rows(source)
    whole, done = sum(expected.values()), 0
    for table in MOVED:
        texts = _texts(table) if replace_nul else []
        options = {"stream_results": True, "max_row_buffer": ROWS_AT_ONCE}
        found = source.execute(sa.select(table), execution_options=options).mappings()
        for page in found.partitions(ROWS_AT_ONCE):
            rows = [dict(row) for row in page]
            for name in texts:
                for row in rows:
                    if row[name] is not None:
                        row[name] = row[name].replace(_NUL, _INSTEAD)
            _insert(target, table, rows)
            done += len(rows)
            progress.show_text(f"{done:,} of {whole:,} rows")
        _count_on(target, table)
    if (counted := count_rows(target)) != expected:
        name = next(name for name in expected if counted[name] != expected[name])
        raise CommandError(
            f"{name} has {counted[name]:,} rows instead of {expected[name]:,}; nothing is written"
        )
    return expected


def texts_with_nul(connection: sa.Connection) -> list[str]:
    """Describe the texts in an SQLite database that contain NUL."""
    found = []
    for table in MOVED:
        for name in _texts(table):
            # A function for texts would end at the NUL.
            place = sa.func.instr(sa.cast(table.c[name], sa.LargeBinary), _NUL.encode())
            these = sa.select(table).where(place > 0)
            for row in connection.execute(these).mappings():
                found.append(f"{_name(table, dict(row))}: {name} is '{printable(row[name])}'")
    return found


def shown_rows(found: Sequence[str]) -> str:
    """Return descriptions of rows in one line."""
    more = len(found) - SHOWN_ROWS
    return "; ".join([*found[:SHOWN_ROWS], *([f"and {more:,} more"] if more > 0 else [])])


def _texts(table: sa.Table) -> list[str]:
    return [column.name for column in table.c if isinstance(column.type, sa.String)]


def _name(table: sa.Table, row: _Row) -> str:
    key = ", ".join(printable(str(row[column.name])) for column in table.primary_key)
    owner = f" in bucket {row['bucket']}" if "bucket" in row and "hash" in row else ""
    return f"{table.name} {key}{owner}"


def _insert(target: sa.Connection, table: sa.Table, rows: list[_Row]) -> None:
    if has_one_writer(target):
        target.execute(sa.insert(table), rows)
        return
    errors: type[Exception] = target.dialect.loaded_dbapi.Error
    try:
        with target.begin_nested():  # else nothing can be asked after an error
            _copy_in(target, table, rows)
    except errors as error:
        raise CommandError(_refused(target, table, rows, error)) from None


def _copy_in(target: sa.Connection, table: sa.Table, rows: list[_Row]) -> None:
    """Insert rows by COPY, which takes less than half the time of INSERT."""
    quoted = target.dialect.identifier_preparer
    names = ", ".join(quoted.format_column(column) for column in table.c)
    as_json = [isinstance(column.type, sa.JSON) for column in table.c]
    driver: Any = target.connection.driver_connection
    statement = f"COPY {quoted.format_table(table)} ({names}) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            pairs = zip(row.values(), as_json, strict=True)
            copy.write_row([json.dumps(value) if is_json else value for value, is_json in pairs])


def _refused(target: sa.Connection, table: sa.Table, rows: list[_Row], error: Exception) -> str:
    """Return which of *rows* the database refuses, and why."""
    for row in rows:
        try:
            with target.begin_nested():
                target.execute(sa.insert(table), row)
        except sa.exc.DatabaseError as its_error:
            return f"the database refuses {_name(table, row)}: {one_line(its_error)}"
    return f"the database refuses rows of {table.name}: {one_line(error)}"


def _count_on(target: sa.Connection, table: sa.Table) -> None:
    """Let the next number of *table* follow the largest; SQLite does so by itself."""
    if "number" not in table.primary_key or has_one_writer(target):
        return
    largest = sa.select(sa.func.max(table.c.number)).scalar_subquery()
    sequence = sa.func.pg_get_serial_sequence(table.name, "number")
    target.execute(
        sa.select(sa.func.setval(sequence, sa.func.coalesce(largest, 1), largest.is_not(None)))
    )
