"""`REST`, the function of 2016 for any request to the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymdc._arguments import Callback, Text, check_callback, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.raising import may_raise
from pymdc._default import check_client, default
from pymdc._http.auth import identify
from pymdc._http.request import NOTHING, build_request, redact
from pymdc._transfers.progress import Progress
from pymdc._transfers.source import Source
from pymdc._transfers.upload import body_of
from pymdc.client import Answer, Client
from pymdc.exceptions import refused
from pymdc.keypair import ECDSA


@may_raise
def REST(  # noqa: N802  # the name of 2016
    method: Text,
    resource: Text,
    params: Mapping[Any, Any] = NOTHING,
    auth: object = (),
    headers: Mapping[Any, Any] = NOTHING,
    callback: Callback | None = None,
    *,
    client: Client | None = None,
) -> Answer:
    """Send *method* to *resource*, a path such as ``/buckets``, and return the bridge's JSON.

    *params* are the JSON body of a POST, PATCH or PUT. For other methods they are the query, and
    are appended to a query in *resource*. A PUT with an open binary file in *params* is sent as a
    multipart form.
    *auth* is a `Users` or another object with ``username`` and ``password_hash()``, or an `ECDSA`,
    which signs the request. If *auth* is empty, the request is not authenticated.
    With *callback*, return a `Call` at once.
    """
    path = text(resource, "the resource")
    if "#" in path:
        shown = redact(path.partition("?")[0])
        raise ValueError(f"the resource is {shown!r}; expected a path, optionally with a query")
    method, path = text(method, "the method").upper(), "/" + path.lstrip("/")
    if method == "PUT" and isinstance(params, Mapping) and any(map(_is_file, params.values())):
        return _put(path, params, auth, headers, callback, check_client(client) or default())
    request = build_request(method, path, params, headers)
    return (check_client(client) or default()).call(
        request, identify(auth or None, "auth"), callback
    )


def _put(
    path: str,
    params: Mapping[Any, Any],
    auth: object,
    headers: Mapping[Any, Any],
    callback: Callback | None,
    client: Client,
) -> Answer:
    """PUT a multipart form: the other *params*, then the file."""
    if isinstance(auth, ECDSA):
        raise ValueError("a file cannot be signed; expected a token in the header x-token")
    request = build_request("PUT", path, headers=headers)
    authentication = identify(auth or None, "auth")
    fields = {
        text(name, "a parameter's name"): value if _is_file(value) else _field(value)
        for name, value in params.items()
    }
    files = [name for name, value in fields.items() if _is_file(value)]
    if len(files) > 1:
        raise ValueError(f"the files are {', '.join(files)}; expected one file")
    callback, source = check_callback(callback), Source(fields.pop(files[0]))

    def put(scope: CancelScope) -> Answer:
        with body_of(source, scope, Progress(None), None, field=files[0], fields=fields) as body:
            with_body = request.with_headers(body.headers)._replace(stream=body)
            answer = client.send(with_body, authentication, scope)
            body.stored = not refused(answer)
            return answer

    return client.run(put, callback, transfer=True)


def _is_file(value: object) -> bool:
    return hasattr(value, "read")


def _field(value: object) -> str:
    return text(str(value) if isinstance(value, int | float) else value, "a parameter's value")
