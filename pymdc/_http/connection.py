"""urllib3's connections, made such that a scope can end what they do."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, Full
from types import FrameType
from typing import Any

import urllib3
from urllib3 import connection, exceptions
from urllib3.util import wait_for_read
from urllib3.util.wait import wait_for_socket

from pymdc._calls.cancel_scope import Scope
from pymdc._http.connect import Tunnel, dial, secured
from pymdc._http.early_answer import Answer, Early

_RECEIVE = 2**14  # bytes
_THEIRS = ("urllib3.connection", "urllib3.connectionpool")


class _Here(threading.local):
    scope: Scope | None = None
    wait: float | None = None
    connected = False


_here = _Here()


@contextmanager
def within(scope: Scope, wait: float) -> Iterator[None]:
    """Let *scope* end what this thread sends in the block, and no send take *wait* seconds."""
    before = _here.scope, _here.wait, _here.connected
    _here.scope, _here.wait, _here.connected = scope, wait, False
    try:
        yield
    except exceptions.SSLError as error:
        if not _here.connected:
            raise
        raise exceptions.ProtocolError(str(error)) from error
    finally:  # what reads a body to be sent may make a call of its own
        _here.scope, _here.wait, _here.connected = before


@contextmanager
def _connecting(to: connection.HTTPConnection) -> Iterator[None]:
    """Raise what breaks in the block as urllib3's exceptions for when nothing was sent."""
    try:
        yield
    except socket.gaierror as error:
        raise exceptions.NameResolutionError(to.host, to, error) from error
    except TimeoutError as error:
        raise exceptions.ConnectTimeoutError(to, str(error)) from error
    except ssl.SSLError:
        raise
    except OSError as error:
        raise exceptions.NewConnectionError(to, str(error)) from error


class _Scoped(connection.HTTPConnection):
    _at_once = 2**30  # bytes, of which a socket takes what it can

    def __init__(self, *args: Any, through: Tunnel | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._through = through
        self._early, self._whole = Early(), False

    def _new_conn(self) -> socket.socket:
        assert _here.scope is not None
        timeout = float(self.timeout or 0)
        with _connecting(self):
            return dial(self._dns_host, self.port, timeout, _here.scope, self._through)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        elif _here.scope is not None:
            with _connecting(self):
                _here.scope.watch(self.sock)
        _here.connected = True
        self._early, self._whole = Early(), False
        # Until now it was the one for connecting. Sending does not block, so that `send` can wait
        # for an answer as well; urllib3's TLS within TLS would lose bytes without blocking.
        self.timeout = 0 if isinstance(self.sock, socket.socket) else _here.wait
        try:
            super().request(*args, **kwargs)
        except TimeoutError as error:
            if not (self._early.began or wait_for_read(self.sock, 0)):
                raise
            raise BrokenPipeError from error
        self._whole = True

    def send(self, data: Any) -> None:
        """Send *data*, each part of which that gets away is a sign of progress.

        If a final answer begins that is no success, or the other side closes, raise
        BrokenPipeError: urllib3 then reads the answer.
        """
        scope, left = _here.scope, memoryview(data).cast("B")
        assert scope is not None
        if not self._early.accepts and wait_for_read(self.sock, 0):
            self._listen()
        while left:
            if self.timeout:  # it would block, and not hear an answer
                self._await_room()
            try:
                left = left[self.sock.send(left[: self._at_once]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._await_room()
            except ssl.SSLWantReadError:  # the other side negotiates anew
                wait_for_read(self.sock, _here.wait)
            else:
                scope.step()

    def _await_room(self) -> None:
        """Wait until the socket takes bytes, receiving what is there of an answer meanwhile."""
        while wait_for_socket(
            self.sock, read=not self._early.accepts, write=True, timeout=_here.wait
        ):
            if self._early.accepts or not wait_for_read(self.sock, 0):
                return
            self._listen()
        raise TimeoutError("timed out")

    def _listen(self) -> None:
        """Receive what is there of an answer; nothing, where it was a message of TLS alone."""
        self.sock.settimeout(0)
        try:
            while not self._early.began:
                data = self.sock.recv(_RECEIVE)
                if not data:
                    raise BrokenPipeError("the other side ended the connection")
                self._early.take(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        finally:
            self.sock.settimeout(self.timeout)
        if not self._early.accepts:
            raise BrokenPipeError("there is an answer")

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        answer = partial(Answer, early=self._early.data, whole=self._whole)
        self.response_class = answer  # type: ignore[assignment]  # it is only called
        try:
            return super().getresponse()
        except (ValueError, OverflowError, MemoryError) as error:
            # http.client believes what the other side says of its lengths.
            raise exceptions.ResponseError(str(error)) from error


class _HTTPSConnection(_Scoped, connection.HTTPSConnection):
    _at_once = 2**14  # bytes, for TLS takes all of what it is given

    def connect(self) -> None:
        assert self.ssl_context is not None
        sock = self._new_conn()
        with _connecting(self):
            self.sock = secured(sock, self.ssl_context, self.host)
        self.is_verified = True


class Kept:
    """The connections of a pool that no call uses, like `queue.LifoQueue` but without its lock.

    A signal handler that raises while a client is closed would leave that one held for ever; so
    might a thread that a forked child does not have.
    """

    def __init__(self, most: int) -> None:
        self.queue: deque[Any] = deque()
        self._most = most

    def put(self, item: Any, block: bool = False, timeout: float | None = None) -> None:
        """Keep *item*; `queue.Full` at once where there is no room."""
        if len(self.queue) >= self._most:
            raise Full
        self.queue.append(item)

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        """Return the item that was put last; `queue.Empty` at once where there is none."""
        try:
            return self.queue.pop()
        except IndexError:
            raise Empty from None

    def qsize(self) -> int:
        """Return the number of items."""
        return len(self.queue)


class HTTPPool(urllib3.HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = _Scoped
    QueueCls = Kept  # type: ignore[assignment]  # which has what urllib3 uses

    def _put_conn(self, conn: Any) -> None:
        if _here.scope is not None:  # from here on the connection may be another call's
            _here.scope.release()
        super()._put_conn(conn)


class HTTPSPool(HTTPPool, urllib3.HTTPSConnectionPool):
    """Secure connections to one host."""

    ConnectionCls = _HTTPSConnection


def logs_for_us() -> bool:
    """Say whether it is one of these that writes to a log of urllib3's, in a filter of that."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _module(frame) == "logging":
        frame = frame.f_back
    while frame is not None and _module(frame) in _THEIRS:
        if "self" in frame.f_locals:
            return isinstance(frame.f_locals["self"], HTTPPool | _Scoped)
        frame = frame.f_back
    return False


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
