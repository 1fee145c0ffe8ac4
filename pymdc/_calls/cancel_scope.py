"""The cancel scope of one call: its deadline, its cancellation, the sockets to shut down."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from pymdc._calls.capture import without_frames
from pymdc._calls.descriptors import when_there_is_one as retry_open
from pymdc._calls.waiting import Changes
from pymdc.exceptions import Cancelled, PymdcError, Timeout

Block = TypeVar("Block")


class CancelScope:
    """Cancels one call, or ends the call at its deadline, by shutting down its sockets.

    *limit* is in seconds: for the whole call or, if *renews*, from one heartbeat to the next.
    """

    operation = "a call not yet sent"

    def __init__(self, limit: float = math.inf, *, renews: bool = False) -> None:
        self._limit = limit
        self._renews = renews
        self._deadline = math.inf
        self._lock = threading.RLock()  # a signal handler may cancel the call that it interrupts
        # Duplicates of the sockets, by the descriptor of the original.
        self._sockets: dict[int, socket.socket] = {}
        self._nested: list[CancelScope] = []
        self._changes = Changes()
        self._reason: PymdcError | None = None
        self._finished = False
        self.thread = 0  # the ident of the thread that started the call

    def start(self) -> None:
        """Start the deadline; raise if already cancelled."""
        self._deadline = time.monotonic() + self._limit
        self.thread = threading.get_ident()
        self.check()

    def nest(self, scope: CancelScope) -> None:
        """End *scope*, the scope of a part of the call, when the call ends early."""
        with self._lock:
            self._nested.append(scope)
            if self._reason is not None:
                scope.fail(self._reason)

    def heartbeats(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield *blocks*, with a heartbeat before each."""
        for block in blocks:
            self.heartbeat()
            yield block

    def heartbeat(self) -> None:
        """Renew the deadline of a transfer; raise if the call was cancelled or timed out."""
        self.check()
        if self._renews:
            self._deadline = time.monotonic() + self._limit

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline - time.monotonic()

    def fail(self, reason: PymdcError) -> bool:
        """End the call with *reason* as its value and shut down its sockets, unless it finished.

        An earlier reason is kept. Say whether the reason is now of the class of *reason*.
        """
        with self._lock:
            if self._finished:
                return False
            if self._reason is None:
                self._reason = reason
            for sock in self._sockets.values():
                _shut_down(sock)
            for scope in self._nested:
                scope.fail(reason)
            self._changes.notify()
            return isinstance(self._reason, type(reason))

    def cancel(self, why: str = "it was cancelled") -> bool:
        """Cancel the call, unless it finished: its value becomes `Cancelled`."""
        return self.fail(Cancelled(f"{self.operation}: {why}"))

    def check_deadline(self, now: float) -> None:
        """Fail with `Timeout` if the deadline has passed."""
        if self._reason is not None:
            self.fail(self._reason)  # again: a socket may have connected after its first shutdown
        elif now >= self._deadline:
            exceeded, setting = ("not done within", "total")
            if self._renews:
                exceeded, setting = ("no progress for", "stall")
            limit = f"{exceeded} {self._limit:g} s, the client's {setting}"
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
        self._changes.wait_for(lambda: self._reason is not None, seconds)
        self.check()

    def attach(self, sock: socket.socket) -> None:
        """Shut down *sock* if the call is cancelled or times out."""
        # A duplicate: the owner may close *sock*, and another socket may then get its descriptor.
        duplicate = partial(socket.fromfd, sock.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        copy = retry_open(duplicate, self.sleep)
        with self._lock:
            previous = self._sockets.pop(sock.fileno(), None)
            self._sockets[sock.fileno()] = copy
            if self._reason is not None:
                _shut_down(copy)
        if previous is not None:  # its original had the same descriptor and is closed
            previous.close()

    def detach(self, sock: socket.socket | None = None) -> None:
        """Undo `attach` for *sock*, which is still open, or for every socket."""
        with self._lock:
            descriptors = list(self._sockets) if sock is None else [sock.fileno()]
            copies = [self._sockets.pop(descriptor, None) for descriptor in descriptors]
        for copy in copies:
            if copy is not None:
                copy.close()


class NestedScope(CancelScope):
    """The scope of a part of the *call*: it ends with the scope of the call, or earlier."""

    def __init__(self, call: CancelScope) -> None:
        super().__init__()
        self._call = call
        call.nest(self)

    @property
    def operation(self) -> str:
        """What the call is doing, for the texts of errors."""
        return self._call.operation

    @operation.setter
    def operation(self, operation: str) -> None:
        self._call.operation = operation

    def heartbeat(self) -> None:
        """Renew the deadline of the call; raise if this part of it, or the call, was ended."""
        self.check()
        self._call.heartbeat()

    def remaining(self) -> float:
        """Return the seconds until the deadline of the call."""
        return self._call.remaining()


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # not connected, or closed
