"""The base class of the resources of the bridge: it makes their calls with a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pymdc._arguments import Callback, check_callback
from pymdc._default import check_client, default
from pymdc._http.auth import Auth, Identity, identify
from pymdc._http.request import NOTHING, build_request, resource
from pymdc.client import Client


class Resource:
    """A resource of the bridge; if *client* is None, the default client makes its calls.

    The public attributes may be assigned; each call reads their current values.
    """

    def __init__(self, client: Client | None) -> None:
        self._given_client = check_client(client)

    @property
    def _client(self) -> Client:
        return self._given_client or default()

    def _call(
        self,
        callback: Callback | None,
        identity: Identity,
        method: str,
        *path: str,
        params: Mapping[str, Any] = NOTHING,
    ) -> Any:
        return self._prepare(callback, identify(identity), method, *path, params=params)()

    def _prepare(
        self,
        callback: Callback | None,
        auth: Auth,
        method: str,
        *path: str,
        params: Mapping[str, Any] = NOTHING,
    ) -> Callable[[], Any]:
        """Return a function that makes the call; wrong arguments raise here."""
        request, client = build_request(method, resource(*path), params), self._client
        return partial(client.call, request, auth, check_callback(callback))
