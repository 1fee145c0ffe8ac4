"""The response to a request, and its value: parsed JSON or an exception."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pymdc._http.raw_response import RawResponse
from pymdc.exceptions import ConnectionLost, GarbledAnswer, HTTPError

_NO_CONTENT = 204
_MAX_ENCODING_NAME = 12  # characters; a longer name may repeat a secret that was sent

_NOT_JSON = "not the bridge's JSON; is something else listening at the endpoint?"
THROTTLING = (429, 503)  # statuses that ask for a later request
_BUSY = dict.fromkeys(THROTTLING, "not the bridge's JSON; the bridge or a proxy is busy")


class Response(NamedTuple):
    """A response; *via* names the proxy that it came through, as `through` does."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    via: str = ""

    def __repr__(self) -> str:
        return f"Response({self.status} from {self.url})"

    def decode(self) -> Any:
        """Return the JSON, '' for an empty body, or the text of a body that is not JSON.

        If the status is 400 or above, a JSON object is the bridge's refusal, and is returned.
        Raises `HTTPError` for a redirect and for any other refusal.
        """
        if 300 <= self.status < 400:
            raise self._error("a redirect, which is not followed; check the endpoint")
        try:
            answer = json.loads(self.body or b'""')
        except (ValueError, RecursionError):
            answer = self.body.decode("utf-8", "replace")
        if self.status >= 400 and not isinstance(answer, dict):
            raise self._error(_BUSY.get(self.status, _NOT_JSON))
        return answer

    def _error(self, msg: str) -> HTTPError:
        via = f" (received{self.via})" if self.via else ""
        return HTTPError(self.url, self.status, msg + via, self.headers, self.body)


def check_response(response: RawResponse, body: bytes, operation: str) -> None:
    """Raise if *response* may have been cut off after its headers, or if its *body* is compressed.

    A response without a body may have been cut off if its headers do not say where the body ends.
    Only a success is checked: other responses without a body become exceptions that say more.
    """
    status = response.status
    if not body and not response.framed and status < 300 and status != _NO_CONTENT:
        raise ConnectionLost(f"{operation}: the connection ended after headers without a length")
    encoding = response.fields.get("Content-Encoding", "").lower() or "identity"
    if body and encoding != "identity":
        name = f"the encoding {encoding!r}"
        if len(encoding) > _MAX_ENCODING_NAME:
            name = "an encoding with a long name"
        message = f"answered {status} in {name}, which is not supported"
        raise GarbledAnswer(f"{operation} {message}")
