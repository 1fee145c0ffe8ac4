"""A request, encoded once: the text that is sent is the text that is signed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from pymdc._arguments import text

NOTHING: Mapping[str, Any] = MappingProxyType({})
_IN_BODY = frozenset({"POST", "PATCH", "PUT"})
_NONCE = "__nonce"
_NO_ESCAPES = re.compile("[A-Za-z0-9/_.~-]*")

# With a wrong value of one of these headers, the next request could get the response of this one.
_FRAMING = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding"})

# Any character may be percent-encoded: the bridge decodes it.
_ACTIVATION = (
    "".join(f"(?:{c}|%{ord(c):x}|%{ord(c.upper()):x})" for c in "/activations/") + r"[^\s?]+"
)


class Request(NamedTuple):
    """One request to the bridge; *payload* is the JSON body, or the query of a GET or DELETE.

    A *stream* is sent as the body instead of the payload; a request with a body may have a *query*.
    """

    method: str
    path: str
    payload: str = ""
    headers: Mapping[str, str] = NOTHING
    stream: Iterable[bytes | memoryview] | None = None
    query: str = ""

    def __repr__(self) -> str:
        return f"Request({self.method})"  # the path is not shown: it may hold a token

    @property
    def safe_path(self) -> str:
        """The path without an activation token, for logs and messages."""
        return redact(self.path)

    @property
    def target(self) -> str:
        """The path and the query, as in the request line."""
        query = self.query if self.method in _IN_BODY else self.payload
        return f"{self.path}?{query}" if query else self.path

    @property
    def body(self) -> bytes | Iterable[bytes | memoryview] | None:
        """The body, or None if the method has none."""
        if self.stream is not None:
            return self.stream
        return self.payload.encode() if self.method in _IN_BODY else None

    def with_nonce(self, nonce: str) -> Request:
        """Return the same request with *nonce*, a number, as its last parameter."""
        if self.method in _IN_BODY:
            comma = "" if self.payload == "{}" else ","
            payload = f'{self.payload[:-1]}{comma}"{_NONCE}":{nonce}}}'
        else:
            payload = "&".join(filter(None, (self.payload, f"{_NONCE}={nonce}")))
        return self._replace(payload=payload)

    def with_headers(self, headers: Mapping[str, str]) -> Request:
        """Return the same request with *headers*, which replace those of the same names."""
        names = {name.lower() for name in headers}
        kept = {name: text for name, text in self.headers.items() if name.lower() not in names}
        return self._replace(headers={**kept, **headers})


def build_request(
    method: str,
    path: str,
    params: Mapping[str, Any] = NOTHING,
    headers: Mapping[Any, Any] = NOTHING,
) -> Request:
    """Encode *params* once, as JSON or as a query, and return the request.

    The *path* may contain a query; the *params* of a GET or DELETE are appended to it.
    Raises TypeError or ValueError for arguments that cannot be sent.
    """
    if not (method.isascii() and method.isalpha() and method.isupper()):
        raise ValueError(f"the method is {method!r}; expected a word such as GET")
    for what, argument in (("the parameters are", params), ("the headers are", headers)):
        if not isinstance(argument, Mapping):
            raise TypeError(f"{what} {type(argument).__name__}; expected a dict")
    params = {text(name, "a parameter's name"): value for name, value in params.items()}
    params.pop(_NONCE, None)
    path, _, query = path.partition("?")
    query = "&".join(part for part in _escaped(query).split("&") if not _is_nonce(part))
    checked = dict(_header(name, value) for name, value in headers.items())
    if method in _IN_BODY:
        return Request(method, _escaped(path), _json(params), checked, query=query)
    query = "&".join(filter(None, (query, _query(params))))
    return Request(method, _escaped(path), query, checked)


def redact(path: str) -> str:
    """Return *path*, or a text that contains paths, without activation tokens."""
    return re.sub(_ACTIVATION, "/activations/...", path, flags=re.IGNORECASE)


def resource(*parts: str) -> str:
    """Return the path that consists of *parts*, each percent-encoded, slashes included."""
    if not all(parts):
        raise ValueError("an id, a hash or a token is empty; expected at least one character")
    return "".join("/" + _segment(part) for part in parts)


def _segment(part: str) -> str:
    # A proxy may resolve "." and ".." as relative path segments.
    return part.replace(".", "%2E") if part in (".", "..") else quote(part, safe="")


def _json(params: Mapping[str, Any]) -> str:
    try:
        payload = json.dumps(params, separators=(",", ":"), default=_bytes_as_text, allow_nan=False)
        if "\\ud" in payload:
            json.dumps(params, default=_bytes_as_text, ensure_ascii=False).encode()
    except ValueError as error:
        reason = "an unpaired surrogate" if isinstance(error, UnicodeError) else error
        raise ValueError(f"a parameter cannot be sent as JSON: {reason}") from None
    return payload


def _query(params: Mapping[str, Any]) -> str:
    try:
        return urlencode(params, quote_via=quote) if params else ""
    except UnicodeError:
        raise ValueError("a parameter cannot be sent: it contains an unpaired surrogate") from None


def _header(name: object, value: object) -> tuple[str, str]:
    name, value = text(name, "a header's name"), text(value, "a header")
    if not re.fullmatch("[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or name.lower() in _FRAMING:
        raise ValueError(f"the header {name!r} cannot be set")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"the value of the header {name} is not printable ASCII")
    return name, value


def _is_nonce(part: str) -> bool:
    return part.partition("=")[0] == _NONCE


def _escaped(path: str) -> str:
    if _NO_ESCAPES.fullmatch(path):
        return path
    # Escapes get capitals, their normal form (RFC 3986, 2.1), so that no proxy changes the path,
    # which is signed.
    path = re.sub("%(?![0-9A-Fa-f]{2})", "%25", path)
    path = re.sub("%..", lambda match: match.group().upper(), path)
    return quote(path, safe="/?%:@!$&'()*+,;=")


def _bytes_as_text(value: object) -> str:
    return text(value, "a parameter's value")
