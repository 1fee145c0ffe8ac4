"""The client that serves where none is given: made from the environment, on first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from pymdc.client import Client

_default: Client | None = None
_making = threading.Lock()


def _in_child() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _seconds(value: str) -> tuple[float, ...]:
    return tuple(float(part) for part in value.split(","))


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "endpoint": ("PYMDC_ENDPOINT", str),
    "workers": ("PYMDC_WORKERS", int),
    "timeout": ("PYMDC_TIMEOUT", _seconds),
    "total": ("PYMDC_TOTAL", float),
    "stall": ("PYMDC_STALL", float),
    "channels": ("PYMDC_CHANNELS", int),
}


def default() -> Client:
    """Return the client made from the variables above; PYMDC_TIMEOUT is one number, or two.

    Raises ValueError for what can't be made from them.
    """
    global _default
    with _making:
        if _default is None:
            settings = {
                name: _read(variable, parse)
                for name, (variable, parse) in _VARIABLES.items()
                if os.environ.get(variable)
            }
            try:
                _default = Client(**settings)
            except ValueError as error:
                names = ", ".join(variable for variable, _ in _VARIABLES.values())
                raise ValueError(f"{error}; it was made from {names}") from None
        return _default


def checked(client: object) -> Client | None:
    """Return *client* if it is one, or None; TypeError when it is neither."""
    if client is not None and not isinstance(client, Client):
        raise TypeError(f"the client is {type(client).__name__}; expected pymdc.Client")
    return client


def _read(variable: str, parse: Callable[[str], Any]) -> Any:
    value = os.environ[variable]
    try:
        return parse(value)
    except ValueError:
        raise ValueError(f"the variable {variable} is {value!r}; expected a number") from None
