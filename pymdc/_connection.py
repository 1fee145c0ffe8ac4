"""urllib3's connections, made such that a scope can end what they do."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import urllib3
from urllib3 import connection, exceptions
from urllib3.util import wait_for_read

from pymdc._dial import Tunnel, dial, secured
from pymdc._scope import Scope


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


class Switched(http.client.HTTPException):
    """The other side speaks another protocol from here on, for which nobody asked."""


class _Answer(http.client.HTTPResponse):
    """Passes over every interim answer as http.client does over 100 alone.

    Taken for the answer itself, one would leave that to the connection's next request.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise Switched
        return version, HTTPStatus.CONTINUE if status < HTTPStatus.OK else status, reason


class _Scoped(connection.HTTPConnection):
    response_class = _Answer
    _at_once = 2**30  # bytes, of which a socket takes what it can

    def __init__(self, *args: Any, through: Tunnel | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._through = through

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
        self.timeout = _here.wait  # for sending; until now it was the one for connecting
        try:
            super().request(*args, **kwargs)
        except TimeoutError as error:
            if self.sock is None or not wait_for_read(self.sock, 0):
                raise
            # An answer is there. Of this error urllib3 knows that there may be, and reads it.
            raise BrokenPipeError from error

    def send(self, data: Any) -> None:
        """Send *data*, each part of which that gets away is a sign of progress."""
        scope = _here.scope
        if scope is None or self.sock is None or not isinstance(data, bytes | memoryview):
            super().send(data)
            return
        left = memoryview(data).cast("B")
        while left:
            left = left[self.sock.send(left[: self._at_once]) :]
            scope.step()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
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


class HTTPPool(urllib3.HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = _Scoped

    def _put_conn(self, conn: Any) -> None:
        if _here.scope is not None:  # from here on the connection may be another call's
            _here.scope.release()
        super()._put_conn(conn)


class HTTPSPool(HTTPPool, urllib3.HTTPSConnectionPool):
    """Secure connections to one host."""

    ConnectionCls = _HTTPSConnection
