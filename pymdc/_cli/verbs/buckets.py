"""``buckets``, ``mb`` and ``rb``: list, make and remove buckets."""

from __future__ import annotations

import re
from typing import Any

import click

from pymdc._cli import complete
from pymdc._cli.address import parse_bucket
from pymdc._cli.failures import Code, Failure
from pymdc._cli.lookup import Entry, all_buckets, entries, files_of, find_bucket
from pymdc._cli.options import dry_run, verb, yes
from pymdc._cli.output import columns
from pymdc._cli.questions import confirm
from pymdc._cli.session import Session
from pymdc._text import count_text, quota_text, size_text
from pymdc.exceptions import BridgeError, HTTPError, unwrap
from pymdc.rest import REST

_ID = re.compile("[0-9a-f]{24}")


@verb
def buckets(session: Session) -> None:
    """List the buckets, with what they hold and may hold."""
    found, usage = all_buckets(session), usage_of(session)
    records = [bucket | usage.get(bucket["id"], {}) for bucket in found]
    if session.out.as_json:
        for record in records:
            session.out.record(record)
    elif records:
        head = ["name", "files", "stored", "of", "sent this month", "of", "id"]
        rows = [head, *map(_row, records)]
        session.out.record({}, "\n".join(columns(rows, right=range(1, 6))))
    else:
        session.out.note("There is no bucket. Make one with: pymdc mb NAME")


def usage_of(session: Session) -> dict[str, Entry]:
    """Return what is stored in each bucket, by its id; empty if the bridge does not tell."""
    try:
        answer = unwrap(session.buckets.usage())
    except (BridgeError, HTTPError):  # an older bridge
        return {}
    return {bucket["id"]: bucket for bucket in answer["buckets"]}


def _row(record: Entry) -> list[str]:
    return [
        str(record["name"]),
        f"{record['files']:,}" if "files" in record else "-",
        size_text(record["stored"]) if "stored" in record else "-",
        quota_text(record["storage"]),
        size_text(record["transferred"]) if "transferred" in record else "-",
        quota_text(record["transfer"]),
        record["id"],
    ]


@verb
@click.argument("names", metavar="BUCKET...", nargs=-1, required=True)
@click.option("--storage", type=click.IntRange(0), metavar="GB", help="What it may hold.")
@click.option("--transfer", type=click.IntRange(0), metavar="GB", help="What it may send a month.")
def mb(session: Session, names: tuple[str, ...], storage: int | None, transfer: int | None) -> None:
    """Make buckets.

    Without a quota they are limited by the bridge alone.
    """
    wanted = [_new_name(name) for name in names]
    there = {bucket["name"] for bucket in all_buckets(session)}
    for name in wanted:
        if name in there:
            raise Failure(f"there is a bucket {name} already")
        there.add(name)
    key_pair = session.identity.key_pair
    for name in wanted:
        # Not Buckets.create, whose quotas are numbers: here none is no limit.
        fields: Entry = {"name": name, "storage": storage, "transfer": transfer, "pubkeys": []}
        bucket = unwrap(REST("POST", "/buckets", fields, key_pair))
        session.out.record(bucket)


def _new_name(text: str) -> str:
    name = parse_bucket(text)
    if "/" in name or _ID.fullmatch(name):
        raise Failure(f"{name}: a name has no / and is not like an id", Code.USAGE)
    return name


@verb
@click.argument(
    "names", metavar="BUCKET...", nargs=-1, required=True, shell_complete=complete.address
)
@dry_run
@yes
def rb(session: Session, names: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Remove buckets, with all that is in them."""
    buckets = [find_bucket(session, parse_bucket(name)) for name in names]
    found = {bucket["id"]: bucket for bucket in buckets}  # each once
    usage = usage_of(session)
    for bucket in found.values():
        held = usage.get(bucket["id"]) or _count(session, bucket)
        what = f"{count_text(held['files'])}, {size_text(held['stored'])}"
        if not dry_run:
            confirm(f"Remove the bucket {bucket['name']} ({what}) for good", yes=yes)
            unwrap(session.bucket(bucket["id"]).delete())
        record = {"id": bucket["id"], "name": bucket["name"], "removed": not dry_run}
        counts = {"files": held["files"], "stored": held["stored"]}
        session.out.record(record | counts)
        if dry_run:
            session.out.summary(f"would remove {bucket['name']} ({what})")


def _count(session: Session, bucket: Entry) -> dict[str, Any]:
    sizes = [entry["size"] for entry in entries(files_of(session, bucket))]
    return {"files": len(sizes), "stored": sum(sizes)}
