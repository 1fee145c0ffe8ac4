"""What may end a call from outside: it is cancelled, or its time is over."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any, TypeVar

from pymdc._calls.capture import without_frames
from pymdc._calls.descriptors import when_there_is_one
from pymdc._calls.waiting import Queue
from pymdc.exceptions import Cancelled, PymdcError, Timeout

Block = TypeVar("Block")


class Scope:
    """One call, from its beginning on a worker to its value, and the sockets that it waits for.

    *limit* is in seconds: for the whole call, or where it *renews*, from one sign of progress to
    the next.
    """

    def __init__(self, limit: float = math.inf, *, renews: bool = False) -> None:
        self._limit = limit
        self._renews = renews
        self._deadline = math.inf
        self._lock = threading.RLock()  # a signal handler may end what it interrupts
        self._sockets: dict[int, socket.socket] = {}  # by the number of the one watched
        self._wake: Queue[None] = Queue()
        self._reason: PymdcError | None = None
        self._finished = False
        self.doing = "a call not yet sent"
        self.thread = 0  # the ident of the one that it was started on

    def start(self) -> None:
        """Start the deadline; raise if already cancelled."""
        self._deadline = time.monotonic() + self._limit
        self.thread = threading.get_ident()
        self.check()

    def progress(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Give *blocks*, each of which is a sign of progress."""
        for block in blocks:
            self.step()
            yield block

    def step(self) -> None:
        """Take note of a sign of progress; raise if the call was ended."""
        self.check()
        if self._renews:
            self._deadline = time.monotonic() + self._limit

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._deadline - time.monotonic()

    def end(self, reason: PymdcError) -> bool:
        """End the call, unless it has its value: what it waits for comes no more.

        Say whether *reason*, or an earlier one of its kind, is the value.
        """
        with self._lock:
            if self._finished:
                return False
            if self._reason is None:
                self._reason = reason
            for sock in self._sockets.values():
                _shut(sock)
            self._wake.put(None)
            return isinstance(self._reason, type(reason))

    def cancel(self, why: str = "it was cancelled") -> bool:
        """End the call with `Cancelled`."""
        return self.end(Cancelled(f"{self.doing}: {why}"))

    def expire(self, now: float) -> None:
        """End the call with `Timeout` if its deadline is not after *now*."""
        if self._reason is not None:
            self.end(self._reason)  # once more, for a socket that was only about to connect
        elif now >= self._deadline:
            what, setting = ("not done within", "total")
            if self._renews:
                what, setting = ("no progress for", "stall")
            told = f"{what} {self._limit:g} s, the client's {setting}"
            self.end(Timeout(f"{self.doing}: {told}"))

    def check(self) -> None:
        """Raise the reason for which the call was ended, if it was."""
        if self._reason is not None:
            raise self._reason

    def finish(self, value: Any) -> Any:
        """Return *value* as the call's, or the reason for which the call was ended before."""
        with self._lock:
            self._finished = True
        self.release()
        return value if self._reason is None else without_frames(self._reason)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the call is ended meanwhile; then raise the reason."""
        with suppress(Empty):
            self._wake.get(seconds)
        self.check()

    def watch(self, sock: socket.socket) -> None:
        """Take *sock* among those that are shut down when the call is ended."""
        # A duplicate, because the owner may close his, and its number may come to mean another.
        twice = partial(socket.fromfd, sock.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        twin = when_there_is_one(twice, self.sleep)
        with self._lock:
            before = self._sockets.pop(sock.fileno(), None)
            self._sockets[sock.fileno()] = twin
            if self._reason is not None:
                _shut(twin)
        if before is not None:  # the one that had the number is closed
            before.close()

    def release(self, sock: socket.socket | None = None) -> None:
        """Forget *sock*, which is still open, or every socket."""
        with self._lock:
            forgotten = list(self._sockets) if sock is None else [sock.fileno()]
            twins = [self._sockets.pop(number, None) for number in forgotten]
        for twin in twins:
            if twin is not None:
                twin.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
