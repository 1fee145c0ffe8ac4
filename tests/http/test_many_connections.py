"""More calls at once than connections are kept: each has its answer, and the rest is closed."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import pytest
from modes import PATIENCE
from servers import ANSWER, RawServer, read_request

import pymdc

KEPT, CALLS = 64, 80


def test_connections_beyond_those_that_are_kept_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    together, closed = threading.Barrier(CALLS), threading.Semaphore(0)

    def treat(connection: socket.socket) -> None:
        read_request(connection)
        together.wait(PATIENCE)
        connection.sendall(ANSWER)
        if not read_request(connection)[0]:
            closed.release()

    got: list[Any] = []
    with caplog.at_level(logging.INFO), RawServer(treat) as server:
        with pymdc.Client(server.endpoint) as client:
            user = pymdc.api.Users("a@b.com", "pass", client=client)
            threads = [
                threading.Thread(target=lambda: got.append(user.register())) for _ in range(CALLS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            for _ in range(CALLS - KEPT):
                assert closed.acquire(timeout=PATIENCE)
            assert not closed.acquire(timeout=0.2), "the others are kept"
        for _ in range(KEPT):
            assert closed.acquire(timeout=PATIENCE)
    assert got == [[]] * CALLS
    assert [record for record in caplog.records if record.name == "pymdc"] == []
