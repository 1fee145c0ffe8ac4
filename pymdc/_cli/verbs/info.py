"""``info``: all that the bridge says about a bucket or a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import click

from pymdc._cli import complete
from pymdc._cli.lookup import Entry, files_of, find_bucket, find_files
from pymdc._cli.options import verb
from pymdc._cli.output import columns, time_text
from pymdc._cli.session import Session
from pymdc._cli.verbs.buckets import usage_of
from pymdc._cli.verbs.files import parse_listed
from pymdc._text import size_text

_BYTES = {"size", "stored", "transferred"}


@verb
@click.argument(
    "addresses",
    metavar="BUCKET:[NAME]...",
    nargs=-1,
    required=True,
    shell_complete=complete.address,
)
def info(session: Session, addresses: tuple[str, ...]) -> None:
    """Show all about buckets or files."""
    empty_line = ""
    for record in _records(session, addresses):
        rows = [[key, _text(key, value)] for key, value in record.items()]
        session.out.record(record, empty_line + "\n".join(columns(rows)))
        empty_line = "\n"


def _records(session: Session, addresses: Iterable[str]) -> Iterator[Entry]:
    for address in map(parse_listed, addresses):
        bucket = find_bucket(session, address.bucket)
        if address.name:
            yield from find_files(files_of(session, bucket), address)
        else:
            yield bucket | usage_of(session).get(bucket["id"], {})


def _text(key: str, value: object) -> str:
    if key == "created" and isinstance(value, str):
        return time_text(value)
    if key in _BYTES and isinstance(value, int):
        return f"{value:,} ({size_text(value)})"
    if key in ("storage", "transfer"):
        return "no limit" if value is None else f"{value} GB"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return value if isinstance(value, str) else json.dumps(value)
