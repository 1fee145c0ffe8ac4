"""What callers and variables may say: arguments are checked here, and errors name them."""

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


_LONGEST = 1e9  # seconds; threading's own limit is not far above it
_MOST = f"at most {_LONGEST:g}"


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


def check_count(number: Any, what: str) -> int:
    """Return *number*, a whole one above zero; ValueError if it is not."""
    if type(number) is not int or number < 1:
        raise ValueError(f"{what} is {number!r}; expected a whole number above zero")
    return number


def check_path(path: Any, what: str) -> Any:
    """Return *path* if it is one, or None; TypeError if it is neither."""
    if path is not None and not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{what} is {type(path).__name__}; expected the path of a file")
    return path


def check_seconds(seconds: Any, what: str) -> float:
    """Return *seconds*, above zero; ValueError if they are not."""
    if not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST:
        raise ValueError(f"{what} is {seconds!r}; expected seconds, above zero and {_MOST}")
    return float(seconds)


def check_timeouts(timeout: Any) -> tuple[float, float]:
    """Return *timeout*, one number of seconds or two, as two: to connect, and to wait for bytes."""
    pair = timeout if isinstance(timeout, tuple | list) else (timeout, timeout)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    numbers = all(isinstance(part, int | float) and 0 < part <= _LONGEST for part in pair)
    if len(pair) != 2 or not numbers:
        raise ValueError(
            f"timeout is {timeout!r}; expected seconds, or (connect, read) seconds, {_MOST}"
        )
    return float(pair[0]), float(pair[1])


def check_patience(timeout: Any) -> float | None:
    """Return the seconds for which ``close()`` waits, or None; TypeError or ValueError if wrong."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        raise TypeError(f"the timeout of close() is {timeout!r}; expected seconds, or None")
    seconds = float(min(timeout, _LONGEST))
    if math.isnan(seconds):
        raise ValueError("the timeout of close() is nan; expected seconds, or None")
    return seconds
