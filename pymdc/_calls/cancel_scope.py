"""The scope of one call: its deadline, its cancellation, and the sockets that these shut down."""

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


class CancelScope:
    """Cancels one call, or ends it at its deadline, by shutting down the sockets it waits for.

    *limit* is in seconds: for the whole call, or if it *renews*, between two signs of progress.
    """

    def __init__(self, limit: float = math.inf, *, renews: bool = False) -> None:
        self._limit = limit
        self._renews = renews
        self._deadline = math.inf
        self._lock = threading.RLock()  # a signal handler may cancel the call that it interrupts
        self._sockets: dict[
            int, socket.socket
        ] = {}  # duplicates, by the descriptor of the original
        self._wake: Queue[None] = Queue()
        self._reason: PymdcError | None = None
        self._finished = False
        self.operation = "a call not yet sent"
        self.thread = 0  # that it was started on

    def start(self) -> None:
        """Start the deadline; raise if already cancelled."""
        self._deadline = time.monotonic() + self._limit
        self.thread = threading.get_ident()
        self.check()

    def heartbeats(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield *blocks*; each is a sign of progress."""
        for block in blocks:
            self.heartbeat()
            yield block

    def heartbeat(self) -> None:
        """Renew the deadline, if it renews; raise if the call was cancelled or timed out."""
        self.check()
        if self._renews:
            self._deadline = time.monotonic() + self._limit

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline - time.monotonic()

    def fail(self, reason: PymdcError) -> bool:
        """Make *reason* the value of the call, unless it has one, and shut down its sockets.

        Say whether the value is *reason*, or an earlier one of the same class.
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
        """Cancel the call: its value is `Cancelled`, unless it has one."""
        return self.fail(Cancelled(f"{self.operation}: {why}"))

    def check_deadline(self, now: float) -> None:
        """Fail with `Timeout` if the deadline has passed."""
        if self._reason is not None:
            self.fail(self._reason)  # again, for a socket that was about to connect
        elif now >= self._deadline:
            what, setting = ("not done within", "total")
            if self._renews:
                what, setting = ("no progress for", "stall")
            limit = f"{what} {self._limit:g} s, the client's {setting}"
            self.fail(Timeout(f"{self.operation}: {limit}"))

    def check(self) -> None:
        """Raise the reason if the call was cancelled or timed out."""
        if self._reason is not None:
            raise self._reason

    def finish(self, value: Any) -> Any:
        """Return the value of the call: *value*, or the reason if it was cancelled or timed out."""
        with self._lock:
            self._finished = True
        self.detach()
        return value if self._reason is None else without_frames(self._reason)

    def sleep(self, seconds: float) -> None:
        """Sleep; raise the reason as soon as the call is cancelled or times out."""
        with suppress(Empty):
            self._wake.get(seconds)
        self.check()

    def attach(self, sock: socket.socket) -> None:
        """Shut down *sock* if the call is cancelled or times out."""
        # A duplicate: the owner may close *sock*, and its descriptor may then be another socket's.
        twice = partial(socket.fromfd, sock.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        twin = when_there_is_one(twice, self.sleep)
        with self._lock:
            before = self._sockets.pop(sock.fileno(), None)
            self._sockets[sock.fileno()] = twin
            if self._reason is not None:
                _shut(twin)
        if before is not None:  # of a socket that had the descriptor and is closed
            before.close()

    def detach(self, sock: socket.socket | None = None) -> None:
        """Undo `attach` for *sock*, which is still open, or for every socket."""
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
