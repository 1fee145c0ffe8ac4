"""A relay in front of PostgreSQL that breaks the connection at a commit."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from servers import RawServer


class CommitProxy(RawServer):
    """Relays connections to the server on *upstream* of 127.0.0.1.

    After `arm`, the next transaction that *mentions* something loses its connection: with its
    COMMIT *sent* and done, or before.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._mentions = b""
        self._sent = False
        super().__init__(self._relay)

    def __enter__(self) -> CommitProxy:
        return self

    def arm(self, *, mentions: str, sent: bool) -> None:
        self._mentions, self._sent = mentions.encode(), sent

    def _relay(self, client: socket.socket) -> None:
        ended, answered = threading.Event(), threading.Event()
        with socket.create_connection(("127.0.0.1", self._upstream)) as server:
            back = threading.Thread(target=self._answer, args=(server, client, ended, answered))
            back.start()
            try:
                self._ask(client, server, ended, answered)
            finally:
                for end in client, server:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    def _ask(
        self,
        client: socket.socket,
        server: socket.socket,
        ended: threading.Event,
        answered: threading.Event,
    ) -> None:
        said = b""
        while data := client.recv(65536):
            said += data
            if b"COMMIT" in data:
                if self._mentions and self._mentions in said:
                    self._mentions = b""
                    ended.set()
                    if self._sent:
                        server.sendall(data)
                        answered.wait()  # it is committed
                    return
                said = b""
            server.sendall(data)

    def _answer(
        self,
        server: socket.socket,
        client: socket.socket,
        ended: threading.Event,
        answered: threading.Event,
    ) -> None:
        """Pass on what the server answers, but not its answer to the last COMMIT."""
        with suppress(OSError):
            while (data := server.recv(65536)) and not ended.is_set():
                client.sendall(data)
        answered.set()
