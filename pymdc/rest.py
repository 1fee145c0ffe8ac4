"""The door of 2016: one function for any request to the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

from pymdc._auth import identify
from pymdc._call import Call, Callback
from pymdc._default import checked, default
from pymdc._request import NOTHING, masked, settle
from pymdc._text import Text, text
from pymdc.client import Answer, Client


@overload
def REST(
    method: Text,
    resource: Text,
    params: Mapping[Any, Any] = ...,
    auth: object = ...,
    headers: Mapping[Any, Any] = ...,
    callback: None = None,
    *,
    client: Client | None = None,
) -> Answer: ...
@overload
def REST(
    method: Text,
    resource: Text,
    params: Mapping[Any, Any],
    auth: object,
    headers: Mapping[Any, Any],
    callback: Callback,
    *,
    client: Client | None = None,
) -> Call: ...
@overload
def REST(
    method: Text,
    resource: Text,
    params: Mapping[Any, Any] = ...,
    auth: object = ...,
    headers: Mapping[Any, Any] = ...,
    *,
    callback: Callback,
    client: Client | None = None,
) -> Call: ...
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

    *params* are the JSON body of a POST, PATCH or PUT, else the query.
    *auth* is a `Users` (password), an `ECDSA` (signature and nonce) or nothing.
    """
    path = text(resource, "the resource")
    if "?" in path or "#" in path:
        shown = masked(path.partition("?")[0])
        raise ValueError(f"the resource is {shown!r}; expected a path, with the query in params")
    path = "/" + path.lstrip("/")
    request = settle(text(method, "the method").upper(), path, params, headers)
    return (checked(client) or default()).call(request, identify(auth), callback)
