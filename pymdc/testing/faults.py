"""Failures and delays on demand: which requests they concern, and what is answered."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from pymdc.bridge.serving.app import App
from pymdc.testing.requests import RecordedRequest, check_route, recorded


@dataclass
class _Rule:
    """Concerns the next *times* requests of *route*; None is each route."""

    route: str | None
    times: float

    def takes(self, request: RecordedRequest) -> bool:
        if not self.times or self.route not in (None, request.route):
            return False
        self.times -= 1
        return True


@dataclass
class Delay(_Rule):
    """Lets requests wait for so many *seconds*."""

    seconds: float


@dataclass
class Failure(_Rule):
    """Answers requests with *status*; None closes the connection.

    *body* is sent as it is; None is the bridge's JSON of an error.
    """

    status: int | None
    body: str | None = None
    retry_after: int | None = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one channel."""
        if scope["type"] == "websocket":
            await receive()  # the connection
            await send({"type": "websocket.accept"})
            await receive()  # the message that asks for a shard
        if self.status is None:
            await _lose(receive)
        elif scope["type"] == "websocket":
            await self._answer_channel(self.status, send)
        else:
            await _drain(receive)
            await self._answer_request(self.status, send)

    async def _answer_request(self, status: int, send: Send) -> None:
        fields = {"Content-Type": "text/html; charset=utf-8"}
        body = self.body
        if body is None:
            body = json.dumps({"error": self._message()})
            fields["Content-Type"] = "application/json; charset=utf-8"
        content = body.encode()
        fields["Content-Length"] = str(len(content))
        if self.retry_after is not None:
            fields["Retry-After"] = str(self.retry_after)
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer_channel(self, status: int, send: Send) -> None:
        text = json.dumps({"code": status, "message": self._message()})
        await send({"type": "websocket.send", "text": text if self.body is None else self.body})
        await send({"type": "websocket.close"})

    def _message(self) -> str:
        return f"Failed by bridge.fail({self.status})"


class Faults:
    """The failures and delays that a test has asked for, and the requests that have arrived."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.suspended = False
        self._failures: list[Failure] = []
        self._delays: list[Delay] = []
        self._lock = (
            threading.Lock()
        )  # a test asks on its thread, and requests arrive on the loop's
        self._waits: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add_failure(
        self,
        status: int | None,
        times: int | None,
        route: str | None,
        body: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Let the next *times* requests of *route* fail; None is each one."""
        self._failures.append(Failure(check_route(route), _count(times), status, body, retry_after))

    def add_delay(self, seconds: float, times: int | None, route: str | None) -> None:
        """Let the next *times* requests of *route* wait for *seconds*; None is each one."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds!r}; expected zero or more")
        self._delays.append(Delay(check_route(route), _count(times), seconds))

    def reset(self) -> None:
        """Forget everything; requests that are delayed go on."""
        with self._lock:
            self.requests, self._failures = [], []
        self.end_delays()

    def end_delays(self) -> None:
        """Delay nothing more; requests that are delayed go on."""
        with self._lock:
            self._delays = []
            waits, self._waits = self._waits, set()
        for loop, over in waits:
            with suppress(RuntimeError):  # the bridge has been closed
                loop.call_soon_threadsafe(over.set)

    async def arrive(self, request: RecordedRequest) -> Failure | None:
        """Record *request*, delay it, and return the failure that it shall have."""
        wait = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self.suspended:
                return None
            self.requests.append(request)
            failure = next((rule for rule in self._failures if rule.takes(request)), None)
            delay = next((rule for rule in self._delays if rule.takes(request)), None)
            if delay is not None:
                self._waits.add(wait)
        request.failed = failure is not None
        if delay is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(wait[1].wait(), delay.seconds)
            self._waits.discard(wait)
        return failure


class FaultyApp(App):
    """The bridge's application, behind the *faults* of a test."""

    def __init__(self, faults: Faults, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a channel, or let it fail."""
        request = recorded(scope, self._routes)

        async def noted(message: Any) -> None:
            request.note_answer(message)  # before the client can see the answer
            await send(message)

        failure = await self._faults.arrive(request)
        serve: Callable[..., Awaitable[None]] = (
            super().__call__ if failure is None else failure.answer
        )
        await serve(scope, receive, noted)


async def _lose(receive: Receive) -> None:
    """Close the connection, and wait until uvicorn knows; else it logs that no answer came."""
    # uvicorn's `receive` is a method of what has the connection.
    receive.__self__.transport.abort()  # type: ignore[attr-defined]
    while not (await receive())["type"].endswith(".disconnect"):
        pass


async def _drain(receive: Receive) -> None:
    """Read the body, until it ends or the client stalls."""
    while (message := await receive()).get("more_body") and message.get("body"):
        pass


def _count(times: int | None) -> float:
    if times is None:
        return math.inf
    if type(times) is not int or times < 1:
        raise ValueError(f"times is {times!r}; expected 1 or more, or None for each request")
    return times
