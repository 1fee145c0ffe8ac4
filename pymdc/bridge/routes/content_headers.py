"""The headers of a request for the content of a file, and of its answer (RFC 9110, RFC 6266)."""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import quote

from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Headers
from pymdc.bridge.settings import MAX_SENT_NAME
from pymdc.bridge.storage.prepared import Row

Fields: TypeAlias = tuple[tuple[str, str], ...]

_RANGE = re.compile(r"bytes=(?=-?[0-9])([0-9]*)-([0-9]*)", re.IGNORECASE)
_LONGEST_NUMBER = 18  # digits; no file is so large
_ENTITY_TAG = re.compile(r'"([^"]*)"')
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)  # RFC 6838, 4.2
_NOT_PLAIN = re.compile(r'[^ -~]|["\\%]')
_ATTRIBUTE = "!#$&+-.^_`|~"  # characters that are not escaped (RFC 8187, 3.2.1)
_ALWAYS = (
    # The answer is for one who has a token, in a link or in a header that caches do not look at.
    ("Cache-Control", "private, no-cache"),
    ("Access-Control-Expose-Headers", "Accept-Ranges, Content-Disposition, Content-Range, ETag"),
)
# Whoever uploaded the file chose its type: a page in it must not act for the bridge's own pages.
_HARMLESS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; sandbox"),
)


def has_it(headers: Headers, file_hash: str) -> bool:
    """Say whether the client has the file already, as If-None-Match tells."""
    condition = headers.get("if-none-match", "")
    return condition.strip() == "*" or file_hash in _ENTITY_TAG.findall(condition)


def wanted_range(headers: Headers, file_hash: str, size: int) -> range | None:
    """Return which bytes are wanted, or None for all; refuse with 416 if there are none.

    What is not one range of bytes is ignored, as RFC 9110 14.2 allows.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if found is None or headers.get("if-range", _tag(file_hash)) != _tag(file_hash):
        return None
    first, last = found.groups()
    if first:
        start, stop = _number(first), _number(last) + 1 if last else size
        if last and stop <= start:
            return None
    else:
        start, stop = max(0, size - _number(last)), size
        if not size and _number(last):
            return None  # the last bytes of an empty file are all of it
    wanted = range(start, min(stop, size))
    if not wanted:
        raise Refused(416, f"The file has {size} bytes", Content_Range=f"bytes */{size}")
    return wanted


def validators(file_hash: str) -> Fields:
    """Return the headers of an answer without the content."""
    return (*_ALWAYS, ("ETag", _tag(file_hash)), ("Accept-Ranges", "bytes"))


def description(file: Row, part: range | None) -> Fields:
    """Return the headers of an answer with a *part* of the content, or with all of it."""
    known, size = _MEDIA_TYPE.fullmatch(file["mimetype"]), file["size"]
    fields = (
        *validators(file["hash"]),
        *_HARMLESS,
        ("Content-Type", file["mimetype"] if known else "application/octet-stream"),
        ("Content-Disposition", disposition(file["filename"])),
        ("Content-Length", str(size if part is None else len(part))),
    )
    if part is None:
        return fields
    return (*fields, ("Content-Range", f"bytes {part[0]}-{part[-1]}/{size}"))


def disposition(name: str) -> str:
    """Return the header Content-Disposition of a file called *name*."""
    encoded, half = name.encode(), MAX_SENT_NAME // 2
    if len(encoded) > MAX_SENT_NAME:  # without its middle, so that it keeps its ending
        name = "".join(end.decode("utf-8", "ignore") for end in (encoded[:half], encoded[-half:]))
    plain = _NOT_PLAIN.sub("_", name)
    extended = f"; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE)}" if plain != name else ""
    return f'attachment; filename="{plain}"{extended}'


def _tag(file_hash: str) -> str:
    return f'"{file_hash}"'


def _number(digits: str) -> int:
    """Return the number in *digits*, or one that is larger than every file."""
    digits = digits.lstrip("0")
    return 10**_LONGEST_NUMBER if len(digits) > _LONGEST_NUMBER else int(digits or 0)
