"""What the resources of the bridge have in common: the client that carries their calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymdc._auth import Auth
from pymdc._call import Callback
from pymdc._default import checked, default
from pymdc._request import NOTHING, resource, settle
from pymdc.client import Client


class Resource:
    """Something at the bridge; *client* None means the default client."""

    def __init__(self, client: Client | None) -> None:
        self._given = checked(client)

    @property
    def _client(self) -> Client:
        return self._given or default()

    def _call(
        self,
        callback: Callback | None,
        auth: Auth,
        method: str,
        *path: str,
        params: Mapping[str, Any] = NOTHING,
    ) -> Any:
        return self._client.call(settle(method, resource(*path), params), auth, callback)
