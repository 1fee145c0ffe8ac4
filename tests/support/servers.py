"""Servers of raw sockets whose handler a test supplies."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from modes import PATIENCE

Handler = Callable[[socket.socket], None]


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body (by its Content-Length) of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return data, b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    return head, body


def read_some(connection: socket.socket) -> None:
    """Read up to 100 bytes."""
    connection.recv(100)


def wait(connection: socket.socket) -> None:
    """Read until the other side closes."""
    while connection.recv(65536):
        pass


def written(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Return the bytes of an HTTP response; *length* replaces its Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


ANSWER = written("200 OK", b"[]")


def answer_all(connection: socket.socket) -> None:
    """Answer each request of a connection with an empty list."""
    while read_request(connection)[0]:
        connection.sendall(ANSWER)


def answering(answer: bytes) -> Handler:
    """Return a handler that reads a request, sends *answer* and closes."""

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return handle


def echoing(before: bytes, first: tuple[bytes, ...] = ()) -> Handler:
    """Return a handler that sends *before* and the head of the request, and closes.

    Lines of the head that begin with one of *first* are sent before the others.
    """

    def handle(connection: socket.socket) -> None:
        lines = read_request(connection)[0].split(b"\r\n")
        lines.sort(key=lambda line: not line.lower().startswith(first or b""))
        connection.sendall(before + b"\r\n".join(lines) + b"\r\n\r\n")

    return handle


def free_port() -> int:
    """Return a free port, which no connection and no server on "a free port" gets meanwhile.

    Systems give those from 32768 on. One of them, in a loop of tries to connect to it, may even
    be connected to itself.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RawServer:
    """Listens on a free port, or on *port*.

    Runs *handle* on a thread for each connection, then closes it.
    """

    def __init__(self, handle: Handler, port: int = 0) -> None:
        self._handle = handle
        self._socket = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.port: int = self._socket.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._handle(connection)
            except OSError:
                return

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_exception: object) -> None:
        _end(self._socket)
        self._threads[0].join()  # it may be about to add a connection
        for connection in self._open:
            _end(connection)
        for thread in self._threads:
            thread.join()


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class HoldingServer(RawServer):
    """Runs *first* on the first connection and holds that one open; answers the others.

    The events: ``held`` is set once *first* has run; a test sets ``released``, and then ``ended``
    is set when the client closes the connection; ``another`` is set by a second connection.
    *over* wraps the handler, for example in TLS.
    """

    def __init__(
        self,
        first: Callable[[socket.socket], object],
        over: Callable[[Handler], Handler] = lambda handle: handle,
    ) -> None:
        self._first = [first]
        self.held, self.released, self.ended, self.another = (threading.Event() for _ in range(4))
        super().__init__(over(self._either))

    def __enter__(self) -> HoldingServer:
        return self

    def _either(self, connection: socket.socket) -> None:
        if self._first:
            self._hold(connection)
        else:
            self.another.set()
            answer_all(connection)

    def _hold(self, connection: socket.socket) -> None:
        self._first.pop()(connection)
        self.held.set()
        self.released.wait(PATIENCE)
        try:
            while connection.recv(65536):
                pass
        finally:
            self.ended.set()


@contextmanager
def full_port() -> Iterator[int]:
    """Yield a port whose backlog is full, so that connecting to it times out."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as others:
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(server.getsockname())
        yield server.getsockname()[1]
