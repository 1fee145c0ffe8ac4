"""The two modes of a call, behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymdc

PATIENCE = 30
AT_ONCE = 5  # seconds, on a busy machine; the promise is one second

Ask = Callable[..., Any]


def blocking(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call *method* without a callback and return its value."""
    return method(*args, **kwargs)


def with_callback(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call *method* with a callback, check that it runs once, and return the value."""
    got: list[Any] = []
    call = method(*args, **kwargs, callback=got.append)
    assert isinstance(call, pymdc.Call)
    result = call.result(PATIENCE)
    assert len(got) == 1
    assert got[0] is result
    assert not call.is_alive()
    return result


def register(client: pymdc.Client, callback: Callable[[Any], object]) -> pymdc.Call:
    """Start a call with *callback*."""
    call: pymdc.Call = pymdc.api.Users("a@b.com", "pass", client=client).register(callback)
    return call


MODES = {"blocking": blocking, "callback": with_callback}
