"""The table of routes: each a method and a path, what answers it, and whom it lets in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from pymdc.bridge.auth import Who, anybody, token_holder, user, user_or_listed_key
from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.routes import buckets, files, keys, uploads, users
from pymdc.bridge.serving.request import Answer, Asked

_API_VERSION = "0.3.0"  # of the bridge of 2016 whose protocol this is
_PARAMETER = r"{(\w+)}"
_BASIC_OR_KEY: list[Any] = [{"basic": []}, {"x-pubkey": [], "x-signature": []}]
_SECURITY = {
    anybody: [],
    user: _BASIC_OR_KEY,
    user_or_listed_key: _BASIC_OR_KEY,
    token_holder: [{"x-token": []}],
}


@dataclass(frozen=True)
class Route:
    """A row of the table.

    *handler* gets the state, what is asked and who asks, and runs on a thread.
    A *streamed* one is a coroutine function, and gets the body as it comes in.
    One that is not *brief* waits for more than the database.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    admits: Callable[[State, Asked], Who]
    streamed: bool = False
    brief: bool = True

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Those that are answered; to HEAD the server sends no body."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path as an expression: in any case, with or without a slash at its end."""
        return re.compile(re.sub(_PARAMETER, r"(?P<\1>[^/]+)", self.path) + "/?", re.IGNORECASE)


def describe(_state: State, asked: Asked, _who: Who) -> Answer:
    """Describe the API."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "summary": route.handler.__doc__,
            "parameters": [
                {"name": name, "in": "path", "required": True, "type": "string"}
                for name in re.findall(_PARAMETER, route.path)
            ],
            "security": _SECURITY[route.admits],
            "responses": {"default": {"description": 'The answer, or {"error": "..."}.'}},
        }
    headers = {
        name: {"type": "apiKey", "in": "header", "name": name}
        for name in ("x-pubkey", "x-signature", "x-token")
    }
    info = {
        "title": "MetaDisk API",
        "description": "Files in buckets, which users and keys share",
        "version": _API_VERSION,
        "x-network-seed": asked.channel,
    }
    answer = {
        "swagger": "2.0",
        "info": info,
        "host": asked.channel.partition("//")[2],
        "securityDefinitions": {"basic": {"type": "basic"}} | headers,
        "paths": paths,
    }
    return Answer(answer)


ROUTES = (
    Route("GET", "/", describe, anybody),
    Route("POST", "/users", users.register, anybody, brief=False),
    Route("GET", "/activations/{token}", users.activate, anybody),
    Route("GET", "/keys", keys.list_keys, user),
    Route("POST", "/keys", keys.register_key, user),
    Route("DELETE", "/keys/{key}", keys.remove_key, user),
    Route("GET", "/buckets", buckets.list_buckets, user),
    Route("POST", "/buckets", buckets.create, user),
    Route("GET", "/buckets/{id}", buckets.show, user),
    Route("PATCH", "/buckets/{id}", buckets.change, user),
    Route("DELETE", "/buckets/{id}", buckets.remove, user, brief=False),
    Route("POST", "/buckets/{id}/tokens", buckets.create_token, user_or_listed_key),
    Route("GET", "/buckets/{id}/files", files.list_files, user),
    Route("PUT", "/buckets/{id}/files", uploads.upload, token_holder, streamed=True),
    Route("GET", "/buckets/{id}/files/{hash}", files.list_pointers, token_holder),
    Route("DELETE", "/buckets/{id}/files/{hash}", files.remove, user, brief=False),
)


def find(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """Return the route for *path*, as sent, and the parameters in it; refuse what has none."""
    matches = [(route, match) for route in ROUTES if (match := route.pattern.fullmatch(path))]
    for route, match in matches:
        if method in route.methods:
            return route, {name: unquote(text) for name, text in match.groupdict().items()}
    if not matches:
        raise Refused(404, f"Cannot {method} {path}")
    allowed = ", ".join(name for route, _ in matches for name in route.methods)
    raise Refused(405, f"Cannot {method} {path}", Allow=allowed)
