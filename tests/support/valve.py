"""A relay in front of a bridge that a test can close."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from modes import PATIENCE
from servers import RawServer

from pymdc.bridge import Bridge


class Valve(RawServer):
    """Relays connections to *bridge*, until *limit* bytes of answers went through.

    Then it sets ``held``, and no more goes through until a test sets ``opened``.
    ``passed`` is the number of bytes of answers so far.
    """

    def __init__(self, bridge: Bridge, limit: int) -> None:
        self._address = "127.0.0.1", int(bridge.endpoint.rpartition(":")[2])
        self._limit = limit
        self.passed = 0
        self.held, self.opened = threading.Event(), threading.Event()
        super().__init__(self._relay)

    def __enter__(self) -> Valve:
        return self

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(self._address) as upstream:
            upload = threading.Thread(target=_copy, args=(client, upstream))
            upload.start()
            try:
                while data := upstream.recv(65536):
                    if self.passed >= self._limit and not self.opened.is_set():
                        self.held.set()
                        self.opened.wait(PATIENCE)
                    self.passed += len(data)
                    client.sendall(data)
            finally:
                for end in client, upstream:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                upload.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
