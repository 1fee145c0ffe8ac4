"""``share`` and ``request``: links for people who have no account."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlsplit

import click

from pymdc._cli import complete
from pymdc._cli.address import parse_bucket, parse_file
from pymdc._cli.lookup import files_of, find_bucket, find_file
from pymdc._cli.options import verb
from pymdc._cli.output import time_text
from pymdc._cli.session import Session
from pymdc._text import printable
from pymdc.exceptions import unwrap

_HERE = ("127.0.0.1", "localhost", "::1")


@verb
@click.argument("address", metavar="BUCKET:NAME", shell_complete=complete.address)
def share(session: Session, address: str) -> None:
    """Make a link by which anybody fetches a file.

    It is for one use, within 5 minutes; no account is needed.
    """
    parsed = parse_file(address)
    bucket = find_bucket(session, parsed.bucket)
    files = files_of(session, bucket)
    entry = find_file(files, parsed)
    token = unwrap(files.token("PULL"))
    path = f"{bucket['id']}/files/{entry['hash']}/content"
    url = f"{session.endpoint}/buckets/{path}?token={token['token']}"
    link = f"{session.endpoint}/#get/{bucket['id']}/{entry['hash']}/{token['token']}"
    name = entry["filename"] if entry["filename"].isprintable() else entry["hash"]
    curl = f"curl -f -o {shlex.quote(f'./{name}' if name.startswith('-') else name)} '{url}'"
    _tell(session, token, entry | {"url": url, "link": link, "curl": curl})


@verb
@click.argument("bucket", metavar="BUCKET:", shell_complete=complete.address)
def request(session: Session, bucket: str) -> None:
    """Make a link by which anybody sends you a file.

    It is for one use, within 5 minutes; no account is needed.
    """
    found = find_bucket(session, parse_bucket(bucket))
    token = unwrap(files_of(session, found).token("PUSH"))
    url = f"{session.endpoint}/buckets/{found['id']}/files"
    link = f"{session.endpoint}/#receive/{found['id']}/{token['token']}"
    size = '"x-filesize: $(wc -c < FILE)"'
    curl = f"curl -f -X PUT -H 'x-token: {token['token']}' -H {size} -F file=@FILE {url}"
    _tell(session, token, {"bucket": found["id"], "url": url, "link": link, "curl": curl})


def _tell(session: Session, token: dict[str, Any], record: dict[str, Any]) -> None:
    until = time_text(token["expires"]).partition(" ")[2]
    text = f"{printable(record['curl'])}\n{record['link']}"
    session.out.record(record | {"token": token["token"], "expires": token["expires"]}, text)
    session.out.note(f"Either works once, until {until}.")
    if urlsplit(session.endpoint).hostname in _HERE:
        session.out.note("Only this machine reaches that address; sign in with one for others.")
