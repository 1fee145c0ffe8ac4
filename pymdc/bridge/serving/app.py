"""The application: finds the route of a request, runs it, and sends the response."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pymdc.bridge.auth import Identity, password_owner
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused, UnavailableError
from pymdc.bridge.logs import Entry, log_fault
from pymdc.bridge.routes import Route, find_route
from pymdc.bridge.routes.channels import Channels
from pymdc.bridge.serving.proxies import Origin, Proxies
from pymdc.bridge.serving.request import Blocks, Headers, Request, Response, to_json
from pymdc.bridge.settings import (
    DRAIN_SECONDS,
    EXPECT_SECONDS,
    MAX_BODY,
    REMOVAL_SECONDS,
    RETRY_SECONDS,
)

_CORS = (("Vary", "Origin"), ("Access-Control-Allow-Credentials", "true"))
# Proxies may keep what an answer says of a user, or the tokens in it, unless they are told.
_JSON = (("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store"))
_CLOSE = ("Connection", "close")
_METHODS = (("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE"),)


class Body:
    """The body of a request; *begun* and *ended* say how far it has been read."""

    def __init__(self, receive: Receive) -> None:
        self.begun = self.ended = False
        self.size = 0  # bytes so far
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
        self.size += len(piece)
        if more and not piece:  # how the server says that the client stalls
            raise Refused(408, "Request body stands still", Connection="close")
        return piece

    async def read(self) -> bytes:
        """Return the whole body; refuse one above the limit."""
        whole = bytearray()
        async for chunk in self:
            whole += chunk
            if len(whole) > MAX_BODY:
                raise Refused(413, "Request body is too large")
        return bytes(whole)

    async def disconnect(self) -> None:
        """Wait until the client has gone; the body has to be read already."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drain(self) -> None:
        """Read the rest and discard it."""
        async for _ in self:
            pass


class App:
    """The *routes*, and the channels if there are any, as an ASGI application.

    *url* is where users reach the bridge; by default, where they asked for it.
    """

    def __init__(
        self,
        context: Context,
        routes: Sequence[Route],
        proxies: Proxies | None = None,
        url: str | None = None,
    ) -> None:
        self.channels = Channels(context)
        self._context = context
        self._routes = routes
        self._proxies = proxies or Proxies(())
        self._url = url
        self._afterwards: list[Callable[[], None]] = []
        self._running_afterwards = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a channel; a channel is a WebSocket at the path /."""
        headers = _headers(scope)
        origin = self._proxies.origin(scope, headers)
        # The path as sent: decoded, it could contain the end of a line.
        path = scope["raw_path"].decode("ascii", "replace")
        if scope["type"] == "http":
            entry = Entry(origin.address, scope["method"], path, self._context.metrics.count)
            body, channel_url = Body(receive), self._channel_url(origin)
            await self._serve_http(scope, headers, body, send, channel_url, entry)
            return
        entry = Entry(origin.address, "GET", path, self._context.metrics.count)
        if scope["path"] == "/":
            entry.method, entry.route = "PULL", "/"
            await self.channels.serve(WebSocket(scope, receive, send), entry)
        else:
            await WebSocket(scope, receive, send).close()
            entry.finish(403)

    @property
    def stopping(self) -> bool:
        """Whether connections are closed after the next answer that begins on them."""
        return self._context.load.stopping

    def refuse_head(self, address: str, message: str) -> None:
        """Log and count a request that was refused before its head could be understood."""
        Entry(address, "-", "-", self._context.metrics.count).finish(400, note=message)

    async def _serve_http(
        self, scope: Scope, headers: Headers, body: Body, send: Send, channel_url: str, entry: Entry
    ) -> None:
        try:
            response = await self._respond(scope, headers, body, channel_url, entry)
            if response.piece is not None:
                await self._run_pieces(response.piece)
        except ClientDisconnect:
            entry.received = body.size
            entry.finish(499, note="The client has gone")
            return
        except asyncio.CancelledError:  # the grace is over
            body.ended = True
            response = Response({"error": "The bridge is stopping"}, 503, (_CLOSE,))
        except Refused as refused:
            entry.note = refused.message if entry.route != "-" else ""  # else the path says it all
            response = Response({"error": refused.message}, refused.status, refused.headers)
        except UnavailableError as error:
            entry.note = str(error)
            later = (("Retry-After", str(RETRY_SECONDS)),)
            response = Response({"error": "The storage does not answer"}, 503, later)
        except Exception as error:  # noqa: BLE001  # every error is logged and answered
            # The line of the request says its path, without an activation token in it.
            log_fault(f"the {scope['method']} request {entry.request}", error)
            response = Response({"error": f"Internal error in request {entry.request}"}, 500)
        status = response.status
        try:
            if response.blocks is not None:
                await self._send_blocks(response.blocks, response, headers, body, send, entry)
            elif response.pages is not None:
                await self._send_pages(response, headers, body, send, entry)
            else:
                entry.sent = await self._send(response, headers, body, send)
        except ClientDisconnect:
            status, entry.note = 499, "The client has gone"
        except asyncio.CancelledError:
            status, entry.note = 499, "The bridge is stopping"
        except Refused as refused:  # in the middle of the pages or blocks
            status, entry.note = refused.status, refused.message
        except UnavailableError as error:  # as above
            status, entry.note = 503, str(error)
        except Exception as error:  # noqa: BLE001  # as above; the body ends in the middle
            log_fault(f"the {scope['method']} request {entry.request}", error)
        finally:
            entry.received = body.size
            if scope["method"] == "HEAD":
                entry.sent = 0
            entry.finish(status)
        if response.afterwards is not None:
            await self._run_afterwards(response.afterwards)

    async def _run_pieces(self, piece: Callable[[], bool]) -> None:
        """Run *piece* until it returns true; what takes longer is done after the response."""
        removals, deadline = self._context.load.removals, time.monotonic() + REMOVAL_SECONDS
        try:
            while removals.has_room and time.monotonic() < deadline:
                async with removals:
                    if await self._context.threads.run(piece):
                        return
        except UnavailableError:
            pass
        self._context.housekeeper.wake()

    async def _run_afterwards(self, function: Callable[[], None]) -> None:
        """Run *function* on a thread, with those of other requests: there may be many."""
        self._afterwards.append(function)
        with contextlib.suppress(asyncio.CancelledError):  # the grace is over
            async with self._running_afterwards:
                functions, self._afterwards = self._afterwards, []
                if functions:
                    await self._context.threads.run(_run_all, functions)

    async def _respond(
        self, scope: Scope, headers: Headers, body: Body, channel_url: str, entry: Entry
    ) -> Response:
        if scope["method"] == "OPTIONS":
            wanted = headers.get("access-control-request-headers")
            allowed = (("Access-Control-Allow-Headers", wanted),) if wanted else ()
            return Response(status=204, headers=_METHODS + allowed)
        context = self._context
        path = scope["raw_path"].decode("ascii")
        route, parameters = find_route(scope["method"], path, self._routes)
        entry.route, entry.quiet = route.path, route.direct
        if "token" in parameters:
            entry.path = route.path.replace("{token}", "...")
        query = scope["query_string"].decode("latin-1")
        request = Request(scope["method"], path, query, headers, parameters, channel_url, entry)
        if route.direct:
            identity = route.authenticate(context, request)
            return await route.handler(context, request, identity)  # type: ignore[no-any-return]
        if not route.streamed:
            if content := await body.read():
                request = replace(request, body=content)
            if route.is_async:
                return await route.handler(context, request)  # type: ignore[no-any-return]
            known = None
            checks = route.checks_password and request.credentials
            if checks or route.hashes_password:
                owner = password_owner(context, request) if checks else entry.address
                async with context.load.hashing(owner):
                    if route.hashes_password:
                        return await context.threads.run(_handle, route, context, request)
                    # A removal, which may take long, must not hold up other passwords.
                    known = await context.threads.run(_authenticate, route, context, request)
            handle = partial(_handle, route, context, request, known)
            if route.db_only:
                return await context.threads.run_db_only(handle)
            async with context.load.removals:
                return await context.threads.run(handle)
        response: Response = await route.handler(context, request, body)
        return response

    async def _send_pages(
        self, response: Response, headers: Headers, body: Body, send: Send, entry: Entry
    ) -> None:
        """Send the pages of *response* as one JSON list, each when it has been read."""
        context, mark = self._context, b"["
        assert response.pages is not None
        gone = asyncio.create_task(body.disconnect())
        await _start(response.status, self._fields(response, headers), send)
        try:
            while not gone.done():
                async with context.load.lists:  # not while a slow client reads the page
                    page = await context.threads.run_db_only(_next_page, response.pages)
                if page is None:
                    break
                entry.sent += len(mark + page)
                await send({"type": "http.response.body", "body": mark + page, "more_body": True})
                mark = b","
        finally:
            gone.cancel()
            await context.threads.run_db_only(response.pages.close)
        await send({"type": "http.response.body", "body": b"]", "more_body": False})
        entry.sent += 1

    async def _send_blocks(
        self,
        blocks: Blocks,
        response: Response,
        headers: Headers,
        body: Body,
        send: Send,
        entry: Entry,
    ) -> None:
        """Send *blocks*, each when the client has read the one before."""
        gone = asyncio.create_task(body.disconnect())
        try:
            with self._context.load.sending():
                await _start(response.status, self._fields(response, headers), send)
                while blocks.left:
                    block = await blocks.read()
                    entry.sent += len(block)
                    for part in block, b"":  # the second one waits until the first one is read
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                    if blocks.left and gone.done():
                        raise ClientDisconnect
        finally:
            gone.cancel()
            await blocks.close()
        await send({"type": "http.response.body", "more_body": False})

    async def _send(self, response: Response, headers: Headers, body: Body, send: Send) -> int:
        """Send *response* at once, but end it only when the rest of *body* has been read.

        So a client that is still sending can read the response, and use the connection again.
        Return the number of bytes sent.
        """
        content, unread = response.body, not body.ended
        # A client that waits for a 100 sends no body; but some do not wait for long.
        awaits_100 = not body.begun and headers.get("expect", "").lower() == "100-continue"
        fields = self._fields(response, headers, close=awaits_100)
        if response.status not in (204, 304) and "Content-Length" not in dict(fields):
            fields.append(("Content-Length", str(len(content))))
        await _start(response.status, fields, send)
        await send({"type": "http.response.body", "body": content, "more_body": unread})
        if unread:
            # CancelledError: the grace is over.
            over = asyncio.TimeoutError, ClientDisconnect, Refused, asyncio.CancelledError
            with contextlib.suppress(*over):
                seconds = EXPECT_SECONDS if awaits_100 else DRAIN_SECONDS
                await asyncio.wait_for(body.drain(), seconds)
            await send({"type": "http.response.body", "more_body": False})
        return len(content)

    def _fields(
        self, response: Response, headers: Headers, *, close: bool = False
    ) -> list[tuple[str, str]]:
        fields = [*response.headers, *_CORS]
        if "origin" in headers:
            fields.append(("Access-Control-Allow-Origin", headers["origin"]))
        if response.value is not None or response.pages is not None:
            fields += _JSON
        # Asked only now: the bridge may have begun to stop since the request came.
        if (close or self.stopping) and _CLOSE not in fields:
            fields.append(_CLOSE)
        return fields

    def _channel_url(self, origin: Origin) -> str:
        if self._url is not None:
            scheme, _, host = self._url.rstrip("/").partition("://")
        else:
            scheme, host = origin.scheme, origin.host or self._context.endpoint.partition("//")[2]
        return f"{'wss' if scheme == 'https' else 'ws'}://{host}"


def _headers(scope: Scope) -> Headers:
    """Return the headers by their names in lower case; the first counts if there are several."""
    # Not Starlette's, which searches all of them and decodes the found one at each use.
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


def _run_all(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        try:
            function()
        except Exception as error:  # noqa: BLE001  # every error is logged
            log_fault("what follows the answer to a request", error)


def _handle(
    route: Route, context: Context, request: Request, known: Identity | None = None
) -> Response:
    """Call the handler; *known* is the identity if it is authenticated already."""
    share = 1 if request.method == "DELETE" else 0.5
    authenticate = partial(_authenticate, route, context, request)
    identity = known or context.load.run(authenticate, share=share)
    response: Response = context.load.run(
        partial(route.handler, context, request, identity), share=share
    )
    _ = response.body  # encoded here, so that the event loop goes on meanwhile
    return response


def _next_page(pages: Generator[list[Any]]) -> bytes | None:
    """Return the next page as JSON, without its brackets; None if there is none."""
    page = next(pages, None)
    return None if page is None else to_json(page)[1:-1]


def _authenticate(route: Route, context: Context, request: Request) -> Identity:
    identity = route.authenticate(context, request)
    request.entry.who = str(identity)
    return identity


async def _start(status: int, fields: list[tuple[str, str]], send: Send) -> None:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
