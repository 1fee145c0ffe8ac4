"""The modes of a call, behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pymdc
from pymdc._default import default

PACKAGE = str(Path(pymdc.__file__).parent)
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


def raising(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call *method* with a client that raises; return its answer, or what it raises as a value."""
    client = kwargs.get("client") or getattr(getattr(method, "__self__", None), "_client", None)
    client, error = client or default(), None
    client.raises = True
    try:
        return method(*args, **kwargs)
    except Exception as caught:  # noqa: BLE001  # it is the value
        error = caught
    finally:
        client.raises = False
    rest = after_raise(error)
    if isinstance(error, pymdc.BridgeError):
        return error.answer
    return error.with_traceback(rest)


def after_raise(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error* after the first frame of pymdc; raise it if more follow.

    Below the caller a value has one frame of pymdc, and then those of the caller's own functions.
    """
    tracebacks = [error.__traceback__]
    while (last := tracebacks[-1]) is not None:
        tracebacks.append(last.tb_next)
    own = [tb for tb in tracebacks if tb and tb.tb_frame.f_code.co_filename.startswith(PACKAGE)]
    if len(own) != 1:
        raise error  # a wrong argument
    return own[0].tb_next


MODES = {"blocking": blocking, "callback": with_callback}
ALL_MODES = {**MODES, "raises": raising}
