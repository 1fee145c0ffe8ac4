"""Statements of almost every request or start, without what SQLAlchemy does for each execution.

For a row found by its key, that takes three times as long as the database and its driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

#: In `sa.Connection.info`: a function that raises what the bridge says of a driver's error, if
#: it says something else.
TRANSLATE = "translate"
Row = Mapping[str, Any]
Process = Callable[[Any], Any]


class _Compiled(NamedTuple):
    """A statement for one kind of database: *order* is that of its parameters, if they have one."""

    sql: str
    constants: Mapping[str, Any]
    order: Sequence[str] | None
    names: Sequence[str]
    processes: Sequence[tuple[str, Process]]


class Prepared:
    """A *statement* that is compiled once for each kind of database.

    Its parameters are ``sa.bindparam``; lists are not among them.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def first(self, connection: sa.Connection, values: Mapping[str, object]) -> Row | None:
        """Execute the statement; return its first row, or None."""
        compiled = self._for(connection)
        cursor = _execute(connection, compiled, values)
        row = cursor.fetchone()
        cursor.close()
        if row is None:
            return None
        found = dict(zip(compiled.names, row, strict=True))
        for name, process in compiled.processes:
            found[name] = process(found[name])
        return found

    def one(self, connection: sa.Connection, values: Mapping[str, object]) -> Row:
        """Execute the statement, which has a row; return that."""
        row = self.first(connection, values)
        assert row is not None
        return row

    def count(self, connection: sa.Connection, values: Mapping[str, object]) -> int:
        """Execute the statement; return how many rows it has changed."""
        cursor = _execute(connection, self._for(connection), values)
        number = int(cursor.rowcount)
        cursor.close()
        return number

    def count_all(self, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> int:
        """Execute the statement with each of *rows*; return how many rows were changed in all."""
        if len(rows) == 1:
            return self.count(connection, rows[0])
        return int(connection.execute(self._statement, rows).rowcount)

    def _for(self, connection: sa.Connection) -> _Compiled:
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _compile(self._statement, dialect)
        return self._compiled[dialect.name]


def _compile(statement: Any, dialect: sa.Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    columns = [*statement.exported_columns]
    processes = []
    if dialect.name == "sqlite":  # the driver of PostgreSQL knows more types
        for column in columns:
            process = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if process is not None:
                processes.append((column.key, process))
    order = compiled.positiontup if compiled.positional else None
    names = [column.key for column in columns]
    return _Compiled(str(compiled), dict(compiled.params), order, names, processes)


def _execute(connection: sa.Connection, compiled: _Compiled, values: Mapping[str, object]) -> Any:
    given = {**compiled.constants, **values} if compiled.constants else values
    parameters: Any = given
    if compiled.order is not None:
        parameters = [given[name] for name in compiled.order]
    try:
        cursor: Any = connection.connection.cursor()
        cursor.execute(compiled.sql, parameters)
    except Exception as error:
        connection.info[TRANSLATE](error)
        raise
    return cursor
