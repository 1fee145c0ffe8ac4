"""What came back: a status, headers and a body, and the value that they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pymdc._http.raw_response import RawResponse
from pymdc.exceptions import ConnectionLost, GarbledAnswer, HTTPError

_NO_CONTENT = 204
_LONGEST_ENCODING = 12  # characters; what is longer may be something that was sent

_STRANGE = "not the bridge's JSON; is something else listening at the endpoint?"
_BUSY = dict.fromkeys((429, 503), "not the bridge's JSON; it, or what stands before it, is busy")


class Response(NamedTuple):
    """What came back: a status, headers, and the body."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    way: str = ""

    def __repr__(self) -> str:
        return f"Response({self.status} from {self.url})"

    def decode(self) -> Any:
        """Return the JSON, '' for an empty body, or the text; raise `HTTPError` for a refusal.

        A refusal of the bridge is a JSON object and so a value; a redirect and any other refusal
        is the error.
        """
        if 300 <= self.status < 400:
            raise self._error("a redirect, which is not followed; check the endpoint")
        try:
            answer = json.loads(self.body or b'""')
        except (ValueError, RecursionError):
            answer = self.body.decode("utf-8", "replace")
        if self.status >= 400 and not isinstance(answer, dict):
            raise self._error(_BUSY.get(self.status, _STRANGE))
        return answer

    def _error(self, msg: str) -> HTTPError:
        came = f" (it came{self.way})" if self.way else ""
        return HTTPError(self.url, self.status, msg + came, self.headers, self.body)


def check_whole(response: RawResponse, body: bytes, operation: str) -> None:
    """Raise unless *body*, that of *response*, came whole, and as it was asked for.

    Headers without a body may have been cut short, which looks like their end. What is no success
    is an exception anyhow, and its own tells more.
    """
    status = response.status
    if not body and not response.framed and status < 300 and status != _NO_CONTENT:
        raise ConnectionLost(f"{operation}: the connection ended in the middle of the headers")
    encoding = response.fields.get("Content-Encoding", "").lower() or "identity"
    if body and encoding != "identity":
        named = repr(encoding) if len(encoding) <= _LONGEST_ENCODING else "with a long name"
        message = f"answered {status} in the encoding {named}, which is not read here"
        raise GarbledAnswer(f"{operation} {message}")
