"""A request as the routes see it, and the response that they return."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl

from pymdc.bridge.errors import Refused
from pymdc.bridge.logs import Entry
from pymdc.bridge.settings import MAX_PARAMETERS

Headers: TypeAlias = Mapping[str, str]  # by their names in lower case
_ID = re.compile(r"[0-9a-fA-F]{24}")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # in JSON
_QUALITY = re.compile(r"q=(0(\.[0-9]{0,3})?|1(\.0{0,3})?)", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class Request:
    """A request.

    *path* and *query* are as sent; *path_parameters* are unquoted.
    *channel_url* is the address of the bridge's channels, as the client reaches the bridge.
    *entry* is its line in the log.
    """

    method: str
    path: str
    query: str
    headers: Headers
    path_parameters: Mapping[str, str]
    channel_url: str
    entry: Entry
    body: bytes = b""

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object in the body; empty if there is none, as in 2016. Refuses NUL."""
        try:
            fields = json.loads(self.body.decode(), parse_constant=_refuse_constant)
            if b"\\u" in self.body:
                json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair raises
        except (ValueError, RecursionError):
            return {}
        if _NUL.search(self.body):
            raise has_nul()
        return fields if isinstance(fields, dict) else {}

    @cached_property
    def query_parameters(self) -> Mapping[str, str]:
        """The parameters in the query string; refuse NUL, and too many, which take long."""
        try:
            parameters = dict(parse_qsl(self.query, max_num_fields=MAX_PARAMETERS))
        except ValueError:
            raise Refused(400, "The query has too many parameters") from None
        if "%00" in self.query and any("\0" in value for value in parameters.values()):
            raise has_nul()
        return parameters

    @property
    def expects_body(self) -> bool:
        """Whether the method takes its parameters from the body, not from the query string."""
        return self.method in ("POST", "PATCH", "PUT")

    @property
    def prefers_html(self) -> bool:
        """Whether the client is a browser, which would rather have a page than JSON."""
        return self._acceptance("text/html") > self._acceptance("application/json")

    def _acceptance(self, kind: str) -> tuple[float, int]:
        """Return the quality of a media type in Accept, and how exactly it is named there.

        The most exact range counts (RFC 9110, 12.5.1).
        """
        ranges = ["*/*", f"{kind.partition('/')[0]}/*", kind]
        found = {"": 0.0}
        for item in self.headers.get("accept", "").split(","):
            name, *parameters = (part.strip() for part in item.split(";"))
            quality = next(filter(None, map(_QUALITY.fullmatch, parameters)), None)
            found[name.lower()] = float(quality[1]) if quality else 1.0
        exact = max((index for index, name in enumerate(ranges) if name in found), default=-1)
        quality_of_it = found[ranges[exact]] if exact >= 0 else 0.0
        return (quality_of_it, exact) if quality_of_it else (0.0, -1)

    @property
    def bucket(self) -> str:
        """The id of the bucket in the path."""
        text = self.path_parameters["id"]
        if not _ID.fullmatch(text):
            raise Refused(400, f'Cast to ObjectId failed for value "{text}" at path "_id"')
        return text.lower()

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of HTTP Basic; None if one is missing or the header is malformed."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return None
        is_basic = scheme.lower() == "basic" and user and password and "\0" not in user
        return (user, password) if is_basic else None


class Blocks(Protocol):
    """Bytes that are read as they are sent; *left* is how many are not read yet.

    `close` is called at the end, whether all of them were sent or not.
    """

    left: int

    async def read(self) -> memoryview:
        """Return the next bytes; what it raises cuts the connection."""

    async def close(self) -> None:
        """Give back what was not sent."""


@dataclass(frozen=True, repr=False)
class Response:
    """A status, and a value to send as JSON; None is an empty body.

    *pages* are sent instead of a value: lists, which are read as they are sent, as one list.
    To read or close them blocks; if one is refused, the connection is closed.
    *content* is sent instead as it is.
    *blocks* are sent instead, as they are read; *headers* have their Content-Length.
    *piece* is called on a thread until it returns true; between two calls it is the turn of other
    requests. What takes longer than a moment is left to the housekeeper, who has to find it.
    *afterwards* is called on a thread when the response is sent, so that neither its value nor
    its time says what is done.
    """

    value: object = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    pages: Generator[list[Any]] | None = None
    content: bytes = b""
    blocks: Blocks | None = None
    piece: Callable[[], bool] | None = None
    afterwards: Callable[[], None] | None = None

    @cached_property
    def body(self) -> bytes:
        """The body; to encode a large value takes long."""
        return self.content if self.value is None else to_json(self.value)


def has_nul() -> Refused:
    """Return the refusal of a text with the character NUL, which PostgreSQL does not store."""
    return Refused(400, "A text contains the character NUL")


def to_json(value: object) -> bytes:
    """Return *value* as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
