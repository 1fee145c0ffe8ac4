"""The public door: the text and the bytes of Python 2 scripts, taken in as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex, SupportsInt

import six

Text = str | bytes
Callback = Callable[[Any], object]
Gigabytes = SupportsInt | SupportsIndex | Text


def text(value: object, what: str) -> str:
    """Return *value*, text or UTF-8 bytes, as text; TypeError names *what* was neither."""
    try:
        return six.ensure_text(raw(value, what))
    except UnicodeError:
        raise ValueError(f"{what} is not UTF-8") from None  # the cause would show it


def raw(value: object, what: str) -> bytes:
    """Return *value*, text or bytes, as UTF-8 bytes; TypeError names *what* was neither."""
    if not isinstance(value, str | bytes):
        raise TypeError(f"{what} is {type(value).__name__}; expected text or bytes")
    try:
        return six.ensure_binary(value)
    except UnicodeError:
        raise ValueError(f"{what} has characters that no text has") from None  # as above


def gigabytes(value: object, what: str) -> int:
    """Return `int()` of *value*, as in 2016: any number, or a text of a whole one."""
    try:
        return int(value)  # type: ignore[call-overload,no-any-return]  # which is checked here
    except TypeError:
        raise TypeError(f"{what} is {type(value).__name__}; expected whole GB") from None
    except (ValueError, OverflowError):
        raise ValueError(f"{what} is {value!r}; expected whole GB") from None


def check_callback(callback: object) -> Callback | None:
    """Return *callback* if it can be called, or None; TypeError when it is neither."""
    if callback is None or callable(callback):
        return callback
    raise TypeError(f"the callback is {type(callback).__name__}; expected a function")
