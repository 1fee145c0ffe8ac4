"""The routes: each has a method, a path, a handler, and a rule about who may use it.

This package knows nothing of sockets, of the server or of SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from pymdc import __version__
from pymdc.bridge.auth import (
    Identity,
    account_holder,
    anybody,
    token_bearer,
    token_holder,
    user,
    user_or_listed_key,
)
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.routes import (
    accounts,
    buckets,
    console,
    content,
    files,
    keys,
    uploads,
    usage,
    users,
)
from pymdc.bridge.serving.request import Request, Response, has_nul

_API_VERSION = "0.3.0"  # of the bridge of 2016, whose protocol this is
_PARAMETER = r"{(\w+)}"
_BASIC_OR_KEY: list[Any] = [{"basic": []}, {"x-pubkey": [], "x-signature": []}]
_SECURITY = {
    anybody: [],
    user: _BASIC_OR_KEY,
    user_or_listed_key: _BASIC_OR_KEY,
    account_holder: [{"basic": []}],
    token_holder: [{"x-token": []}],
    token_bearer: [{"x-token": []}, {"token": []}],
}


@dataclass(frozen=True)
class Route:
    """A row of the table.

    *handler* is called on a thread with the context, the request and the identity that
    *authenticate* returned. The handler of an *is_async* route is a coroutine function, which is
    given the context and the request, and authenticates by itself. That of a *streamed* route is
    one too, and is also given the body as it arrives. That of a *direct* route is one which the
    event loop runs at once, whatever waits; *authenticate* must not block then.
    A *db_only* route only queries the database. *hashes_password* is true if it hashes one, which
    takes long, also where no password is checked.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    authenticate: Callable[[Context, Request], Identity]
    streamed: bool = False
    is_async: bool = False
    direct: bool = False
    db_only: bool = True
    hashes_password: bool = False

    @property
    def checks_password(self) -> bool:
        """Whether the password in a request is looked at."""
        return self.authenticate in (user, user_or_listed_key, account_holder)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that the route answers; the server sends no body in response to HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path as an expression: in any case, with or without a slash at its end."""
        return re.compile(re.sub(_PARAMETER, r"(?P<\1>[^/]+)", self.path) + "/?", re.IGNORECASE)


def describe(context: Context, request: Request, _identity: Identity) -> Response:
    """Describe the API; a browser gets the console."""
    if request.prefers_html:
        return console.show_page(request)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "summary": route.handler.__doc__,
            "parameters": [
                {"name": name, "in": "path", "required": True, "type": "string"}
                for name in re.findall(_PARAMETER, route.path)
            ],
            "security": _SECURITY[route.authenticate],
            "responses": {"default": {"description": 'The answer, or {"error": "..."}.'}},
        }
    places = {"x-pubkey": "header", "x-signature": "header", "x-token": "header", "token": "query"}
    given = {name: {"type": "apiKey", "in": place, "name": name} for name, place in places.items()}
    info = {
        "title": "MetaDisk API",
        "description": "Files in buckets, which users and keys share",
        "version": _API_VERSION,
        "x-network-seed": request.channel_url,
        "x-version": __version__,
        "x-registration": context.registration,
    }
    description = {
        "swagger": "2.0",
        "info": info,
        "host": request.channel_url.partition("//")[2],
        "securityDefinitions": {"basic": {"type": "basic"}} | given,
        "paths": paths,
    }
    return Response(description, headers=console.VARY)


ROUTES = (
    Route("GET", "/", describe, anybody),
    Route("POST", "/users", users.register, anybody, hashes_password=True),
    Route("GET", "/activations/{token}", users.activate, anybody),
    Route("PATCH", "/users/{email}", accounts.change, account_holder, hashes_password=True),
    Route("DELETE", "/users/{email}", accounts.remove, account_holder),
    Route("POST", "/users/{email}/reset", accounts.request_reset, anybody),
    Route("PUT", "/users/{email}/reset", accounts.reset, anybody, hashes_password=True),
    Route("GET", "/keys", keys.list_keys, user),
    Route("POST", "/keys", keys.register_key, user),
    Route("DELETE", "/keys/{key}", keys.remove_key, user),
    Route("GET", "/buckets", buckets.list_buckets, user),
    Route("POST", "/buckets", buckets.create, user),
    Route("GET", "/buckets/{id}", buckets.show, user),
    Route("PATCH", "/buckets/{id}", buckets.change, user),
    Route("DELETE", "/buckets/{id}", buckets.remove, user),
    Route("POST", "/buckets/{id}/tokens", buckets.create_token, user_or_listed_key),
    Route("GET", "/buckets/{id}/files", files.list_files, user),
    Route("PUT", "/buckets/{id}/files", uploads.upload, token_holder, streamed=True),
    Route("GET", "/buckets/{id}/files/{hash}", files.list_pointers, token_holder),
    Route("PATCH", "/buckets/{id}/files/{hash}", files.rename, user),
    Route("DELETE", "/buckets/{id}/files/{hash}", files.remove, user, db_only=False),
    Route("GET", "/buckets/{id}/files/{hash}/content", content.send, token_bearer, is_async=True),
    Route("GET", "/usage", usage.show_usage, user),
)

CONSOLE = (Route("GET", "/console/{name}", console.show_file, anybody, direct=True),)


def find_route(
    method: str, path: str, routes: Sequence[Route] = ROUTES
) -> tuple[Route, Mapping[str, str]]:
    """Return the route of *path*, as sent, and the parameters in it; refuse if there is none."""
    matches = [(route, match) for route in routes if (match := route.pattern.fullmatch(path))]
    for route, match in matches:
        if method in route.methods:
            parameters = {name: unquote(text) for name, text in match.groupdict().items()}
            if any("\0" in value for value in parameters.values()):
                raise has_nul()
            return route, parameters
    if not matches:
        raise Refused(404, f"Cannot {method} {path}")
    allowed = ", ".join(name for route, _ in matches for name in route.methods)
    raise Refused(405, f"Cannot {method} {path}", Allow=allowed)
