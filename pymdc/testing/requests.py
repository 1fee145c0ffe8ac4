"""What arrived at the bridge of a test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymdc.bridge.errors import Refused
from pymdc.bridge.logs import without_secrets
from pymdc.bridge.routes import ROUTES, Route, find_route

CHANNEL = "PULL /"  # the route of the WebSocket that sends a shard


@dataclass(repr=False)
class RecordedRequest:
    """A request that arrived at the bridge, or a shard that was asked for.

    *path* is without query and without tokens.
    *route* is the method and the path of a route, ``PUT /buckets/{id}/files``, "PULL /" for a
    shard, or "" if the bridge knows no such route.
    *status* is None until it is answered, and stays None if the connection was lost before.
    *failed* says that `TestBridge.fail` or `TestBridge.disconnect` made the answer.
    """

    method: str
    path: str
    route: str
    status: int | None = None
    failed: bool = False

    def __repr__(self) -> str:
        made = " (on demand)" if self.failed else ""
        return f"<{self.method} {self.path} {self.status or 'no answer'}{made}>"

    def note_answer(self, message: Mapping[str, Any]) -> None:
        """Take the status from an ASGI *message* that the bridge is about to send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "websocket.send":
            refusal = message.get("text")
            self.status = json.loads(refusal)["code"] if refusal else 200


def recorded(scope: Mapping[str, Any], routes: Sequence[Route]) -> RecordedRequest:
    """Return the record of a request, of which *scope* is what ASGI says."""
    path = scope["raw_path"].decode("ascii", "replace")
    if scope["type"] == "websocket":
        return RecordedRequest("PULL", without_secrets(path), CHANNEL if path == "/" else "")
    method, name = scope["method"], ""
    with suppress(Refused):
        route, parameters = find_route(method, path, routes)
        name = f"{route.method} {route.path}"
        if "token" in parameters:
            path = route.path.replace("{token}", "...")
    return RecordedRequest(method, without_secrets(path), name)


def check_route(route: str | None) -> str | None:
    """Return *route* if the bridge has it, or if it is None; else raise ValueError."""
    known = [f"{row.method} {row.path}" for row in ROUTES] + [CHANNEL]
    if route is not None and route not in known:
        raise ValueError(f"route is {route!r}; expected one of {', '.join(known)}")
    return route
