"""What the resources of the bridge have in common: the client that carries their calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pymdc._arguments import Callback, check_callback
from pymdc._default import check_client, default
from pymdc._http.auth import Identity, identify
from pymdc._http.request import NOTHING, build_request, resource
from pymdc.client import Client


class Resource:
    """Something at the bridge; *client* None means the default client.

    Its public attributes may be assigned: each call reads them anew.
    """

    def __init__(self, client: Client | None) -> None:
        self._given = check_client(client)

    @property
    def _client(self) -> Client:
        return self._given or default()

    def _call(
        self,
        callback: Callback | None,
        identity: Identity,
        method: str,
        *path: str,
        params: Mapping[str, Any] = NOTHING,
    ) -> Any:
        return self._prepared(callback, identity, method, *path, params=params)()

    def _prepared(
        self,
        callback: Callback | None,
        identity: Identity,
        method: str,
        *path: str,
        params: Mapping[str, Any] = NOTHING,
    ) -> Callable[[], Any]:
        """Return what makes the call; what is wrong with its arguments is raised here."""
        request = build_request(method, resource(*path), params)
        auth, client = identify(identity), self._client
        return partial(client.call, request, auth, check_callback(callback))
