"""A relay in front of PostgreSQL that breaks the connection at a commit."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from modes import PATIENCE
from servers import RawServer


class CommitProxy(RawServer):
    """Relays connections to the server on *upstream* of 127.0.0.1.

    After `arm`, the next transaction that *mentions* something loses its connection: with its
    COMMIT *sent* and done, or before. If there is something *told*, the client gets that first.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._mentions = b""
        self._sent = False
        self._told = b""
        super().__init__(self._relay)

    def __enter__(self) -> CommitProxy:
        return self

    def arm(self, *, mentions: str, sent: bool, told: bytes = b"") -> None:
        self._mentions, self._sent, self._told = mentions.encode(), sent, told

    def _relay(self, client: socket.socket) -> None:
        ended = threading.Event()
        with socket.create_connection(("127.0.0.1", self._upstream)) as server:
            back = threading.Thread(target=self._answer, args=(server, client, ended))
            back.start()
            try:
                if self._ask(client, server, ended):
                    back.join(PATIENCE)  # it is committed then
                if ended.is_set():
                    client.sendall(self._told)
            finally:
                for end in client, server:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    def _ask(self, client: socket.socket, server: socket.socket, ended: threading.Event) -> bool:
        """Pass on what the client says; return whether a COMMIT was sent after which it ends."""
        said = b""
        while data := client.recv(65536):
            said += data
            if b"COMMIT" in data:
                if self._mentions and self._mentions in said:
                    self._mentions = b""
                    ended.set()
                    if self._sent:
                        server.sendall(data)
                    return self._sent
                said = b""
            server.sendall(data)
        return False

    def _answer(self, server: socket.socket, client: socket.socket, ended: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not ended.is_set():
                client.sendall(data)


def error(code: str, text: str) -> bytes:
    """Return what a server, or a relay before it, tells of an error; it is ready then."""
    fields = f"SERROR\0VERROR\0C{code}\0M{text}\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields + b"Z\0\0\0\5I"
