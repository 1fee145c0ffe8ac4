"""The application: how a request finds its way to its route, and the answer back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.routes import Route, find
from pymdc.bridge.routes.channels import Channels
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.settings import DRAIN_SECONDS, MAX_BODY

_CORS = (("Vary", "Origin"), ("Access-Control-Allow-Credentials", "true"))
_METHODS = (("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE"),)
_log = logging.getLogger("pymdc.bridge")


class Body:
    """The body of a request as it comes in; *begun* and *ended* say how far it was read."""

    def __init__(self, receive: Receive) -> None:
        self.begun = self.ended = False
        self._receive = receive

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.ended:
            raise StopAsyncIteration
        self.begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = bytes(message.get("body", b"")), message.get("more_body", False)
        self.ended = not (piece and more)
        if more and not piece:  # the server's word for a client that stands still
            raise Refused(408, "Request body stands still", Connection="close")
        return piece

    async def read(self) -> bytes:
        """Return the whole body; refuse a large one."""
        whole = bytearray()
        async for chunk in self:
            whole += chunk
            if len(whole) > MAX_BODY:
                raise Refused(413, "Request body is too large")
        return bytes(whole)

    async def drain(self) -> None:
        """Read what is left, and throw it away."""
        async for _ in self:
            pass


class App:
    """The bridge as an ASGI application."""

    def __init__(self, state: State) -> None:
        self.channels = Channels(state)
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a WebSocket is a channel at the path /, and refused elsewhere."""
        if scope["type"] == "http":
            await self._http(Request(scope), Body(receive), send)
        elif scope["path"] == "/":
            await self.channels.serve(WebSocket(scope, receive, send))
        else:
            await WebSocket(scope, receive, send).close()

    async def _http(self, request: Request, body: Body, send: Send) -> None:
        try:
            answer = await self._answer(request, body)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:  # the bridge stops, and waits no longer
            body.ended = True
            answer = Answer({"error": "The bridge is stopping"}, 503, (("Connection", "close"),))
        except Refused as refused:
            answer = Answer({"error": refused.message}, refused.status, refused.headers)
        except Exception:  # noqa: BLE001  # whatever it is, it is logged and answered
            # Without the path, in which there may be an activation token.
            _log.exception("a %s request failed", request.method)
            answer = Answer({"error": "Internal error"}, 500)
        await _reply(answer, request, body, send)

    async def _answer(self, request: Request, body: Body) -> Answer:
        if request.method == "OPTIONS":
            wanted = request.headers.get("access-control-request-headers")
            allowed = (("Access-Control-Allow-Headers", wanted),) if wanted else ()
            return Answer(status=204, headers=_METHODS + allowed)
        path = request.scope["raw_path"].decode("ascii")
        route, parameters = find(request.method, path)
        scheme = "wss" if request.scope["scheme"] == "https" else "ws"
        host = request.headers.get("host") or self._state.endpoint.partition("//")[2]
        query = request.scope["query_string"].decode("latin-1")
        asked = Asked(
            request.method, path, query, request.headers, parameters, f"{scheme}://{host}"
        )
        if not route.streamed:
            asked = replace(asked, body=await body.read())
            # To check a password takes long, too.
            brief = route.brief and "authorization" not in asked.headers
            offload = self._state.offload.briefly if brief else self._state.offload
            return await offload(_handle, route, self._state, asked)
        who = await self._state.offload.briefly(route.admits, self._state, asked)
        answer: Answer = await route.handler(self._state, asked, who, body)
        return answer


def _handle(route: Route, state: State, asked: Asked) -> Answer:
    answer: Answer = route.handler(state, asked, route.admits(state, asked))
    return answer


async def _reply(answer: Answer, request: Request, body: Body, send: Send) -> None:
    """Send *answer* at once, and end it when the rest of the body was read.

    So a sender who is still writing finds it, and the connection can be used again.
    """
    content, unread = answer.encode(), not body.ended
    headers = [*answer.headers, *_CORS]
    if "origin" in request.headers:
        headers.append(("Access-Control-Allow-Origin", request.headers["origin"]))
    if content:
        headers.append(("Content-Type", "application/json; charset=utf-8"))
    if answer.status != 204:
        headers.append(("Content-Length", str(len(content))))
    if not body.begun and "expect" in request.headers:
        headers.append(("Connection", "close"))  # nobody asked for the body, so it won't come
        unread = False
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": content, "more_body": unread})
    if unread:
        over = asyncio.TimeoutError, ClientDisconnect, Refused, asyncio.CancelledError
        with contextlib.suppress(*over):  # the last when the bridge stops, and waits no longer
            await asyncio.wait_for(body.drain(), DRAIN_SECONDS)
        await send({"type": "http.response.body", "more_body": False})
