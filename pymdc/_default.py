"""The default client, made from environment variables at the first call that needs it."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pymdc._arguments import Callback
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.pool import WorkerPool
from pymdc.client import Client
from pymdc.exceptions import NoEndpoint

_lock = threading.RLock()  # a signal handler may make a call while this thread holds it
_client: Client | None = None
_client_values: list[str | None] = []  # of the variables, when the client was made
_timeout: float | None = None  # as set by `set_timeout`


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _seconds(value: str) -> tuple[float, ...]:
    """Return the numbers in *value*, which are separated by commas."""
    return tuple(float(part) for part in value.split(","))


def _switch(value: str) -> bool:
    """Return whether *value* switches on; KeyError if it switches neither on nor off."""
    words = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    return words[value.lower()]


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "endpoint": ("PYMDC_ENDPOINT", str),
    "workers": ("PYMDC_WORKERS", int),
    "timeout": ("PYMDC_TIMEOUT", _seconds),
    "total": ("PYMDC_TOTAL", float),
    "stall": ("PYMDC_STALL", float),
    "channels": ("PYMDC_CHANNELS", int),
    "raises": ("PYMDC_RAISES", _switch),
}

_EXPECTED: dict[Callable[[str], Any], str] = {
    _seconds: "a number, or two separated by a comma",
    _switch: "1 or 0",
}


class _ClientWithoutEndpoint(Client):
    """The default client if no bridge is named; the value of each call is `NoEndpoint`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("http://localhost", **settings)

    def run(
        self,
        work: Callable[[CancelScope], Any],
        callback: Callback | None,
        *,
        transfer: bool = False,
    ) -> Any:
        """Return `NoEndpoint`, or hand it to *callback*."""
        return super().run(_no_endpoint, callback)

    @property
    def endpoint(self) -> str:
        """A text that messages show in place of an address."""
        return "no bridge"

    def __repr__(self) -> str:
        return "<Client without an endpoint>"


class _FinalizationClient(Client):
    """The default client if the first call is made while Python ends; nothing is sent then."""

    def __init__(self) -> None:
        self._closed = True
        self._transport: Any = None  # nothing is sent
        self._total = self._stall = math.inf
        self._size = 1
        self.raises = False
        self._pool = WorkerPool(self._size)

    @property
    def endpoint(self) -> str:
        """A text that messages show in place of an address."""
        return "any bridge"


def _no_endpoint(_scope: CancelScope) -> NoReturn:
    raise NoEndpoint


def default() -> Client:
    """Return the default client; its settings are the values of the variables in `_VARIABLES`.

    A new client is made if a value has changed and no call is outstanding.
    Raises ValueError if a variable has a wrong value.
    """
    global _client, _client_values
    if sys.is_finalizing():
        return _client or _FinalizationClient()
    with _lock:
        values = [os.environ.get(variable) for variable, _ in _VARIABLES.values()]
        if _client is None or (values != _client_values and not _client.outstanding):
            # The previous client is not closed, because another thread may be about to make a call
            # with it. Its threads end when they are idle, and its connections when it is deleted.
            _client, _client_values = _make(), values
        return _client


@contextmanager
def replaced() -> Iterator[None]:
    """Let the block have a default client of its own, which is closed after the block."""
    global _client, _client_values, _timeout
    with _lock:
        before = _client, _client_values, _timeout
        _client = _timeout = None
    try:
        yield
    finally:
        with _lock:
            own = _client
            _client, _client_values, _timeout = before
        if own is not None:
            own.close()


def set_timeout(seconds: float) -> None:
    """Set the timeouts of the current default client and of later ones."""
    global _timeout
    client = default()
    client.set_timeout(seconds)
    _timeout = seconds


def _make() -> Client:
    settings = {
        name: _read(variable, parse)
        for name, (variable, parse) in _VARIABLES.items()
        if os.environ.get(variable)
    }
    try:
        client = (
            Client(**settings) if "endpoint" in settings else _ClientWithoutEndpoint(**settings)
        )
    except ValueError as error:
        names = ", ".join(_VARIABLES[name][0] for name in settings)
        raise ValueError(f"{error}; the client was made from {names}") from None
    if _timeout is not None:
        client.set_timeout(_timeout)
    return client


def check_client(client: object) -> Client | None:
    """Return *client* if it is a client or None; TypeError if it is neither."""
    if client is not None and not isinstance(client, Client):
        raise TypeError(f"the client is {type(client).__name__}; expected pymdc.Client")
    return client


def _read(variable: str, parse: Callable[[str], Any]) -> Any:
    value = os.environ[variable]
    try:
        return parse(value)
    except (ValueError, KeyError):
        expected = _EXPECTED.get(parse, "a number")
        raise ValueError(f"the variable {variable} is {value!r}; expected {expected}") from None
