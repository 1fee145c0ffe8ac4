"""Completes buckets and files for a shell."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from pymdc._cli.lookup import PAGE, all_buckets, files_of
from pymdc._cli.session import Session
from pymdc.exceptions import unwrap

_PATIENCE = {"PYMDC_TIMEOUT": "2", "PYMDC_TOTAL": "3"}  # seconds


def address(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the buckets or files that begin as *incomplete* does; none if something is wrong."""
    os.environ.update(_PATIENCE)
    try:
        names = [*_names(context.ensure_object(Session), incomplete)]
    except Exception:  # noqa: BLE001  # nobody reads messages while typing
        return []
    return [CompletionItem(name) for name in names if name.isprintable()]


def path_or_address(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return buckets or files if there are such, and else have the shell complete a path."""
    found = address(context, parameter, incomplete) if incomplete else []
    return found or [CompletionItem(incomplete, type="file")]


def _names(session: Session, incomplete: str) -> Iterator[str]:
    wanted, colon, begin = incomplete.partition(":")
    buckets = all_buckets(session)
    if not colon:
        yield from (f"{it['name']}:" for it in buckets if it["name"].startswith(wanted))
        return
    bucket = next(it for it in buckets if wanted in (it["name"], it["id"]))
    for entry in unwrap(files_of(session, bucket).list(limit=PAGE)):
        if entry["filename"].startswith(begin):
            yield f"{wanted}:{entry['filename']}"
