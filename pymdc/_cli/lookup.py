"""Finds buckets and files by what a user types: a name, an id, a hash, or a pattern."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pymdc._cli.address import Address
from pymdc._cli.failures import Code, Failure
from pymdc._cli.output import columns, time_text
from pymdc._cli.session import Session
from pymdc._text import size_text
from pymdc.api import Files
from pymdc.exceptions import unwrap

PAGE = 1000
MANIFEST = ".pymdc-sync"  # in a bucket, the file that says which paths a sync gave to its contents
Entry = dict[str, Any]


def all_buckets(session: Session) -> list[Entry]:
    """Return the buckets of the account."""
    answer: list[Entry] = unwrap(session.buckets.list())
    return answer


def find_bucket(session: Session, wanted: str) -> Entry:
    """Return the bucket whose name or id is *wanted*."""
    buckets = all_buckets(session)
    named = [bucket for bucket in buckets if bucket["name"] == wanted]
    found = named or [bucket for bucket in buckets if bucket["id"] == wanted]
    if not found:
        remedy = f"pymdc buckets lists the buckets, pymdc mb {shlex.quote(wanted)} makes one"
        raise Failure(f"there is no bucket {wanted}", Code.NOT_FOUND, remedy)
    if len(found) > 1:
        lines = columns([f"{it['id']}:", f"made {time_text(it['created'])}"] for it in found)
        message = f"{len(found)} buckets are named {wanted}; type the id of one instead"
        raise Failure(message, Code.FAILED, "\n".join(lines))
    return found[0]


def files_of(session: Session, bucket: Entry) -> Files:
    """Return the files of *bucket*."""
    return session.bucket(bucket["id"]).files


def entries(files: Files) -> Iterator[Entry]:
    """Yield the entries of a bucket, a page at a time."""
    last = None
    while True:
        page: list[Entry] = unwrap(files.list(limit=PAGE, after=last))
        yield from page
        if len(page) != PAGE or page[-1]["hash"] == last:  # the bridge of 2016 knows no pages
            return
        last = page[-1]["hash"]


def named(files: Files, name: str) -> list[Entry]:
    """Return the entries with the file name *name*."""
    return [entry for entry in unwrap(files.list(name=name)) if entry["filename"] == name]


def find_file(files: Files, address: Address) -> Entry:
    """Return the entry of the one file that *address* names."""
    found = _with_hash(files, address) or named(files, address.name)
    if not found:
        raise Failure(f"there is no file {address}", Code.NOT_FOUND)
    if len(found) > 1:
        message = f"{len(found)} files are {address}; type the hash of one instead"
        raise Failure(message, Code.FAILED, twins(found, address.bucket))
    return found[0]


def twins(found: Sequence[Entry], bucket: str) -> str:
    """Return a line for each entry in *found*, with what to type for it."""
    rows = [
        [
            f"{bucket}:#{entry['hash']}",
            size_text(entry["size"]),
            time_text(entry.get("created")),
            entry["filename"],
        ]
        for entry in found
    ]
    return "\n".join(columns(rows, right=[1]))


def find_files(files: Files, address: Address, *, hidden: bool = False) -> Iterator[Entry]:
    """Yield the entries that *address* names: one, those that match a pattern, or all.

    A manifest is among several only if also *hidden* files are wanted.
    """
    if address.name and not address.is_pattern:
        yield find_file(files, address)
        return
    if address.name and (exact := named(files, address.name)):
        yield from exact
        return
    matched = False
    for entry in entries(files):
        if entry["filename"] == MANIFEST and not hidden:
            continue
        if not address.name or fnmatchcase(entry["filename"], address.name):
            matched = True
            yield entry
    if not matched and address.name:
        raise Failure(f"nothing matches {address}", Code.NOT_FOUND)


def _with_hash(files: Files, address: Address) -> list[Entry]:
    """Return the entries whose hash begins as *address* says; at most two."""
    start = address.hash
    if start is None:
        return []
    found = []
    for entry in entries(files):
        if entry["hash"].startswith(start):
            found.append(entry)
            if len(start) == 40 or len(found) == 2:
                break
    return found


Choice = Callable[[str], bool]


def choice(include: Sequence[str], exclude: Sequence[str]) -> Choice:
    """Return a function that says whether a name is included, and not excluded."""

    def chosen(name: str) -> bool:
        included = not include or any(fnmatchcase(name, pattern) for pattern in include)
        return included and not any(fnmatchcase(name, pattern) for pattern in exclude)

    return chosen
