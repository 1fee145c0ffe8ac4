"""Checks of arguments and of values from environment variables; errors name the argument."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, SupportsIndex, SupportsInt

import six

Text = str | bytes
Callback = Callable[[Any], object]
Seconds = float | tuple[float, float]
Gigabytes = SupportsInt | SupportsIndex | Text


_MAX_SECONDS = 1e9  # threading has a limit that is not far above
_AT_MOST = f"at most {_MAX_SECONDS:g}"


def text(value: object, what: str) -> str:
    """Return *value*, text or UTF-8 bytes, as text; errors call it *what*."""
    try:
        return six.ensure_text(raw(value, what))
    except UnicodeError:  # its text shows *value*
        raise ValueError(f"{what} is not UTF-8") from None


def raw(value: object, what: str) -> bytes:
    """Return *value*, text or bytes, as UTF-8 bytes; errors call it *what*."""
    if not isinstance(value, str | bytes):
        raise TypeError(f"{what} is {type(value).__name__}; expected text or bytes")
    try:
        return six.ensure_binary(value)
    except UnicodeError:  # its text shows *value*
        raise ValueError(f"{what} has characters that no text has") from None


def gigabytes(value: object, what: str) -> int:
    """Return `int()` of *value*, as in 2016: *value* is a number or the text of a whole number."""
    try:
        return int(value)  # type: ignore[call-overload,no-any-return]  # this is the check
    except TypeError:
        raise TypeError(f"{what} is {type(value).__name__}; expected whole GB") from None
    except (ValueError, OverflowError):
        raise ValueError(f"{what} is {value!r}; expected whole GB") from None


def check_callback(callback: object) -> Callback | None:
    """Return *callback* if it is callable or None; TypeError if it is neither."""
    if callback is None or callable(callback):
        return callback
    raise TypeError(f"the callback is {type(callback).__name__}; expected a function")


def check_count(number: Any, what: str) -> int:
    """Return *number* if it is a whole number above zero; ValueError if it is not."""
    if type(number) is not int or number < 1:
        raise ValueError(f"{what} is {number!r}; expected a whole number above zero")
    return number


def check_switch(switch: Any, what: str) -> bool:
    """Return *switch* if it is True or False; TypeError if it is neither."""
    if not isinstance(switch, bool):
        raise TypeError(f"{what} is {switch!r}; expected True or False")
    return switch


def check_path(path: Any, what: str) -> Any:
    """Return *path* if it is a path or None; TypeError if it is neither."""
    if path is not None and not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{what} is {type(path).__name__}; expected the path of a file")
    return path


def check_seconds(seconds: Any, what: str) -> float:
    """Return *seconds* as a float; ValueError unless it is above zero and within the limit."""
    if not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_SECONDS:
        raise ValueError(f"{what} is {seconds!r}; expected seconds, above zero and {_AT_MOST}")
    return float(seconds)


def check_timeouts(timeout: Any) -> tuple[float, float]:
    """Return *timeout*, a number or a pair, as a pair of seconds: to connect, to wait for bytes."""
    pair = timeout if isinstance(timeout, tuple | list) else (timeout, timeout)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    valid = all(isinstance(part, int | float) and 0 < part <= _MAX_SECONDS for part in pair)
    if len(pair) != 2 or not valid:
        raise ValueError(
            f"timeout is {timeout!r}; expected seconds, or (connect, read) seconds, {_AT_MOST}"
        )
    return float(pair[0]), float(pair[1])


def check_close_timeout(timeout: Any) -> float | None:
    """Return the *timeout* of ``close()`` as seconds or None; an error if it is neither."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        raise TypeError(f"the timeout of close() is {timeout!r}; expected seconds, or None")
    seconds = float(min(timeout, _MAX_SECONDS))
    if math.isnan(seconds):
        raise ValueError("the timeout of close() is nan; expected seconds, or None")
    return seconds
