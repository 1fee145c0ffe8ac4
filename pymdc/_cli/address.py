"""Where a file is: ``BUCKET:NAME`` at the bridge, or a path on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pymdc._cli.failures import Code, Failure

_HASH = re.compile(r"#([0-9a-f]{6,40})", re.IGNORECASE)
_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Address:
    """``BUCKET:NAME``; the *bucket* is a name or an id, and without a *name* it is meant whole."""

    bucket: str
    name: str = ""

    @property
    def hash(self) -> str | None:
        """The beginning of a hash, if the name is ``#HASH``."""
        found = _HASH.fullmatch(self.name)
        return found[1].lower() if found else None

    @property
    def is_pattern(self) -> bool:
        """Whether the name has a wildcard."""
        return bool(_WILD & set(self.name))

    def __str__(self) -> str:
        return f"{self.bucket}:{self.name}"


def parse(text: str) -> Address | None:
    """Return the address in *text*, or None if it is a path: it has no colon, or a / before it."""
    bucket, colon, name = text.partition(":")
    if not colon or "/" in bucket or not bucket:
        return None
    if os.name == "nt" and len(bucket) == 1:  # a drive
        return None
    return Address(bucket, name)


def parse_remote(text: str) -> Address:
    """Return the address in *text*; a failure if it is a path."""
    address = parse(text)
    if address is None:
        raise Failure(f"{text} is a path; expected BUCKET:NAME", Code.USAGE)
    return address


def parse_file(text: str) -> Address:
    """Return the address of one file in *text*."""
    address = parse_remote(text)
    if not address.name:
        raise Failure(f"{text} names no file; expected {address.bucket}:NAME", Code.USAGE)
    return address


def parse_bucket(text: str) -> str:
    """Return the bucket in *text*, ``BUCKET`` or ``BUCKET:``."""
    bucket, _, name = text.partition(":")
    if name or not bucket:
        raise Failure(f"{text!r} is no bucket; expected BUCKET or BUCKET:", Code.USAGE)
    return bucket
