"""Descriptors, of which a process has so many: who needs one waits for it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import TypeVar

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

Opened = TypeVar("Opened")

_WITHOUT_LIMIT = 512  # descriptors of a process
_PAUSE = 0.1  # seconds between two tries


def few_left(number: int) -> bool:
    """Say whether *number*, a descriptor that was just given, is in the upper half of them all.

    The lowest free one is given, so that as many as its number are in use.
    """
    if resource is None:
        return number >= _WITHOUT_LIMIT // 2
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return number >= (sys.maxsize if limit == resource.RLIM_INFINITY else limit // 2)


def none_left(error: OSError) -> bool:
    """Say whether *error* is that there is no descriptor."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def when_there_is_one(
    open_it: Callable[[], Opened], left: Callable[[], float], sleep: Callable[[float], None]
) -> Opened:
    """Return what *open_it* returns, by *sleep* waiting for a descriptor while time is *left*."""
    while True:
        try:
            return open_it()
        except OSError as error:
            if not none_left(error) or left() < _PAUSE:
                raise
        sleep(_PAUSE)
