"""Descriptors, of which a process has so many: who needs one waits for it."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import TypeVar

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

Opened = TypeVar("Opened")

_WITHOUT_LIMIT = 512  # descriptors of a process
_PAUSE = 0.05  # seconds between two tries
_PATIENCE = 1.0  # seconds: who has many short calls under way lets one go soon, or not at all


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
    open_it: Callable[[], Opened], sleep: Callable[[float], None], seconds: float = _PATIENCE
) -> Opened:
    """Return what *open_it* returns; by *sleep* wait up to *seconds* for a descriptor."""
    last = time.monotonic() + seconds
    while True:
        try:
            return open_it()
        except OSError as error:
            if not none_left(error) or time.monotonic() > last:
                raise
        sleep(_PAUSE)
