"""``ls``, ``rm`` and ``mv``: list, remove and rename files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import click
from click.exceptions import Exit

from pymdc import Call
from pymdc._cli import complete
from pymdc._cli.address import Address, parse_file, parse_remote
from pymdc._cli.failures import Code, Failure, code_of, failure_of
from pymdc._cli.lookup import (
    PAGE,
    Entry,
    all_buckets,
    choice,
    files_of,
    find_bucket,
    find_file,
    find_files,
)
from pymdc._cli.options import dry_run, filters, jobs, verb
from pymdc._cli.output import columns, time_text
from pymdc._cli.parallel import ENDS_ALL, each
from pymdc._cli.session import Session
from pymdc._text import printable, size_text
from pymdc.api import Files
from pymdc.exceptions import unwrap


@verb
@click.argument(
    "addresses", metavar="[BUCKET:[NAME]]...", nargs=-1, shell_complete=complete.address
)
@click.option("-l", "long", is_flag=True, help="Show size, time, type, name and hash.")
@click.option("-a", "--all", "hidden", is_flag=True, help="Show the manifest of sync as well.")
@filters
def ls(
    session: Session,
    addresses: tuple[str, ...],
    long: bool,
    hidden: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> None:
    """List files; without an argument, the buckets.

    The name may be a pattern, such as 'photos:*.jpg'.
    """
    if not addresses:
        for bucket in all_buckets(session):
            session.out.record(bucket, printable(f"{bucket['name']}:"))
        return
    chosen = choice(include, exclude)
    for address in [parse_listed(text) for text in addresses]:
        files = files_of(session, find_bucket(session, address.bucket))
        named = find_files(files, address, hidden=hidden)
        found = (it for it in named if chosen(it["filename"]))
        for page in _pages(found):
            lines = _long(page) if long else [printable(entry["filename"]) for entry in page]
            for entry, line in zip(page, lines, strict=True):
                session.out.record(entry, line)


def parse_listed(text: str) -> Address:
    return parse_remote(text if ":" in text else f"{text}:")


def _pages(found: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield the entries in lists, so that a long list is printed while it is read."""
    iterator = iter(found)
    while page := [*islice(iterator, PAGE)]:
        yield page


def _long(page: list[Entry]) -> list[str]:
    return columns(map(_row, page), right=[0])


def _row(entry: Entry) -> list[str]:
    return [
        size_text(entry["size"]),
        time_text(entry.get("created")),
        entry["mimetype"],
        entry["filename"],
        entry["hash"],
    ]


class _Found(NamedTuple):
    files: Files
    entry: Entry


@verb
@click.argument(
    "addresses", metavar="BUCKET:NAME...", nargs=-1, required=True, shell_complete=complete.address
)
@filters
@jobs
@dry_run
def rm(
    session: Session,
    addresses: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    jobs: int,
    dry_run: bool,
) -> None:
    """Remove files.

    The name may be a pattern, such as 'photos:*.jpg'.
    """
    parsed, chosen = [parse_file(text) for text in addresses], choice(include, exclude)
    found = {}  # each once, by bucket and hash
    for address in parsed:
        files = files_of(session, find_bucket(session, address.bucket))
        for entry in find_files(files, address):
            found[files.bucket_id, entry["hash"]] = _Found(files, entry)
    wanted = [it for it in found.values() if chosen(it.entry["filename"])]
    if not wanted:
        raise Failure("nothing is left after --include and --exclude", Code.NOT_FOUND)
    if dry_run:
        for it in wanted:
            _tell(session, it.entry, removed=False)
    else:
        _remove(session, wanted, jobs)


def _remove(session: Session, found: list[_Found], jobs: int) -> None:
    done, failures = 0, []
    with closing(each(found, _start_removal, jobs)) as calls:
        for it, _, error in calls:
            if error is None:
                done += 1
                _tell(session, it.entry, removed=True)
                continue
            failures.append(failure_of(error).about(it.entry["filename"]))
            session.out.failure(failures[-1])
            if failures[-1].code in ENDS_ALL:
                break
    if failures:
        raise Exit(code_of(failures, done))


def _start_removal(it: _Found, callback: Callable[[Any], object]) -> Call:
    call: Call = it.files.delete(it.entry["hash"], callback)
    return call


def _tell(session: Session, entry: Entry, *, removed: bool) -> None:
    text = None if removed else f"would remove {printable(entry['filename'])}"
    session.out.record(entry | {"removed": removed}, text)


@verb
@click.argument("source", metavar="BUCKET:NAME", shell_complete=complete.address)
@click.argument("target", metavar="BUCKET:NEW", shell_complete=complete.address)
@dry_run
def mv(session: Session, source: str, target: str, dry_run: bool) -> None:
    """Rename a file; or a bucket, as in pymdc mv photos: holiday:."""
    old, new = parse_remote(source), parse_remote(target)
    bucket = find_bucket(session, old.bucket)
    if not old.name and not new.name:
        _rename_bucket(session, bucket, new.bucket, dry_run=dry_run)
        return
    if new.bucket != old.bucket and find_bucket(session, new.bucket)["id"] != bucket["id"]:
        remedy = "get the file, and put it into the other bucket"
        raise Failure("a file is renamed within its bucket", Code.USAGE, remedy)
    if not (old.name and new.name):
        raise Failure("expected two names of a file, or two buckets", Code.USAGE)
    if "/" in new.name:
        raise Failure(f"{new.name}: a name has no /", Code.USAGE)
    files = files_of(session, bucket)
    entry = find_file(files, old)
    if not dry_run:
        entry = unwrap(files.rename(entry["hash"], new.name))
    session.out.record(entry)
    if dry_run:
        session.out.summary(printable(f"would rename {entry['filename']} to {new.name}"))


def _rename_bucket(session: Session, bucket: Entry, name: str, *, dry_run: bool) -> None:
    if any(other["name"] == name for other in all_buckets(session)):
        raise Failure(f"there is a bucket {name} already")
    if not dry_run:
        bucket = unwrap(session.bucket(bucket["id"]).patch({"name": name}))
    session.out.record(bucket)
    if dry_run:
        session.out.summary(printable(f"would rename {bucket['name']} to {name}"))
