"""``sync``: make a bucket like a folder, or a folder like a bucket."""

from __future__ import annotations

import click
from click.exceptions import Exit

from pymdc._cli.address import Address, parse
from pymdc._cli.complete import path_or_address
from pymdc._cli.failures import Code, Failure
from pymdc._cli.lookup import files_of, find_bucket
from pymdc._cli.options import dry_run, filters, jobs, verb, yes
from pymdc._cli.session import Session
from pymdc._cli.sync.down import Down
from pymdc._cli.sync.manifest import check_path
from pymdc._cli.sync.options import Options
from pymdc._cli.sync.remote import Remote
from pymdc._cli.sync.report import Report
from pymdc._cli.sync.scan import Filter, scan
from pymdc._cli.sync.up import Up

_AGAIN = "interrupted: run the same command again, and it goes on from here"


@verb
@click.argument("source", metavar="SOURCE", shell_complete=path_or_address)
@click.argument("dest", metavar="DEST", shell_complete=path_or_address)
@click.option("--delete", is_flag=True, help="Remove from DEST what SOURCE does not have.")
@click.option("--checksum", is_flag=True, help="Compare by content, not by size and time.")
@filters
@jobs
@dry_run
@yes
def sync(
    session: Session,
    source: str,
    dest: str,
    delete: bool,
    checksum: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    jobs: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make a bucket like a folder, or a folder like a bucket.

    DEST becomes like SOURCE; one is a folder, the other BUCKET: or BUCKET:FOLDER.
    Only what differs is sent or fetched.
    """
    addresses = parse(source), parse(dest)
    if (addresses[0] is None) == (addresses[1] is None):
        message = "expected a folder and a bucket: FOLDER BUCKET: or BUCKET: FOLDER"
        raise Failure(message, Code.USAGE)
    options = Options(
        source,
        dest,
        delete=delete,
        checksum=checksum,
        real=not dry_run,
        yes=yes,
        jobs=jobs,
        filter=Filter(include, exclude),
    )
    try:
        code = _sync(session, addresses[0] or addresses[1], options, up=addresses[0] is None)
    except KeyboardInterrupt:
        raise Failure(_AGAIN, Code.INTERRUPTED) from None
    if code:
        raise Exit(code)


def _sync(session: Session, address: Address | None, options: Options, *, up: bool) -> Code:
    assert address
    prefix = _prefix(address)
    remote = Remote(files_of(session, find_bucket(session, address.bucket)))
    verb, done = ("send", "sent") if up else ("fetch", "fetched")
    report = Report(session, verb, done, options.real)
    if up:
        found = scan(options.source, options.filter)
        report.scanned(found)
        Up(found, remote, prefix, options, report).run()
    else:
        Down(remote, prefix, options, report).run()
    return report.end()


def _prefix(address: Address) -> str:
    """Return the folder in *address*, without slashes around it."""
    prefix = address.name.strip("/")
    try:
        return check_path(prefix) if prefix else ""
    except ValueError:
        message = f"{address} is no folder in a bucket; expected BUCKET: or BUCKET:FOLDER"
        raise Failure(message, Code.USAGE) from None
