"""A call as a future: its states, and waits for it with a timeout."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest
from modes import PATIENCE, register
from servers import HoldingServer, read_request

import pymdc
from pymdc import Call, Cancelled

States = tuple[bool, bool, bool]


def states(call: Call) -> States:
    return call.running(), call.done(), call.is_alive()


def test_call_waits_runs_and_is_done() -> None:
    inside: list[States] = []
    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint, workers=1) as client:
        first = register(client, lambda value: inside.append(states(first)))
        second = register(client, lambda value: None)
        assert server.held.wait(PATIENCE)
        assert states(first) == (True, False, True)
        assert states(second) == (False, False, True)
        first.cancel()
        server.released.set()
        second.join(PATIENCE)
        assert states(first) == states(second) == (False, True, False)
    assert inside == [(True, False, True)]


@pytest.mark.parametrize("wait", [Call.result, Call.exception])
@pytest.mark.parametrize("seconds", [0.1, 0, -1])
def test_timed_out_wait_raises_timeout_error_and_does_not_end_call(
    wait: Callable[..., Any], seconds: float
) -> None:
    got: list[Any] = []
    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint) as client:
        call = register(client, got.append)
        assert server.held.wait(PATIENCE)
        with pytest.raises(concurrent.futures.TimeoutError):
            wait(call, seconds)
        with pytest.raises(concurrent.futures.TimeoutError):
            wait(call, timeout=seconds)
        call.join(seconds)
        assert call.is_alive()
        assert got == []
        call.cancel()
        server.released.set()
        assert wait(call, PATIENCE) is (got[0] if wait is Call.result else None)
        assert wait(call, seconds) is wait(call)
    assert [type(value) for value in got] == [Cancelled]
