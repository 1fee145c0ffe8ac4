"""More calls at once than kept connections: each is answered, and surplus connections close."""

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


def test_surplus_connections_are_closed_and_others_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    all_requested, closed = threading.Barrier(CALLS), threading.Semaphore(0)

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        all_requested.wait(PATIENCE)
        connection.sendall(ANSWER)
        if not read_request(connection)[0]:
            closed.release()

    got: list[Any] = []
    with caplog.at_level(logging.INFO), RawServer(handle) as server:
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
