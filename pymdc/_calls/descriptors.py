"""File descriptors: their number is limited, so code that needs one waits until one is free."""

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

_DEFAULT_LIMIT = 512  # descriptors of a process, where the system tells no limit
_RETRY_INTERVAL = 0.05  # seconds
# Seconds. In a program with many short calls a descriptor is free sooner than this, or never.
_MAX_WAIT = 1.0


def few_left(number: int) -> bool:
    """Say whether *number*, a descriptor just opened, is above half of the limit.

    The system gives the lowest free number, so at least *number* descriptors are in use.
    """
    if resource is None:
        return number >= _DEFAULT_LIMIT // 2
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return number >= (sys.maxsize if limit == resource.RLIM_INFINITY else limit // 2)


def none_left(error: OSError) -> bool:
    """Say whether *error* means that no descriptor is free."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def when_there_is_one(
    opener: Callable[[], Opened], sleep: Callable[[float], None], seconds: float = _MAX_WAIT
) -> Opened:
    """Return what *opener* returns; call it again for up to *seconds* while no descriptor is free.

    *sleep* waits between two attempts.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return opener()
        except OSError as error:
            if not none_left(error) or time.monotonic() > deadline:
                raise
        sleep(_RETRY_INTERVAL)
