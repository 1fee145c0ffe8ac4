"""Lists that are read in pages, so that a long one takes no memory and holds up nobody."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import chain
from typing import Any

import sqlalchemy as sa

from pymdc.bridge.context import Context
from pymdc.bridge.serving.request import Response


def listed(
    context: Context,
    statement: sa.Select[Any],
    number: sa.Column[int],
    size: int,
    to_json: Callable[[sa.RowMapping], dict[str, object]],
    limit: int | None = None,
) -> Response:
    """Return the rows of *statement*, or the first *limit*, in the order of the column *number*.

    The first page of *size* rows is read now, and the others when they are sent.
    """
    read = _pages(context, statement.order_by(number), number, size, limit)
    first = next(read, [])

    def pages() -> Generator[list[dict[str, object]]]:
        for page in chain([first], read):
            yield [to_json(row) for row in page]

    return Response(next(pages())) if len(first) < size else Response(pages=pages())


def _pages(
    context: Context,
    statement: sa.Select[Any],
    number: sa.Column[int],
    size: int,
    limit: int | None,
) -> Iterator[list[sa.RowMapping]]:
    """Yield the rows in pages, each read in a transaction of its own."""
    last = 0
    while limit is None or limit > 0:
        wanted = size if limit is None else min(size, limit)
        with context.database.read() as connection:
            page = statement.where(number > last).limit(wanted)
            rows = [*connection.execute(page).mappings()]
        if rows:
            yield rows
            last = rows[-1][number]
        if len(rows) < wanted:
            return
        limit = None if limit is None else limit - wanted
