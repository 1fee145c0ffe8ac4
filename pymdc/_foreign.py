"""What the caller's own functions and files raise, kept apart from what the network does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Foreign(Exception):
    """Something of the caller's raised the cause: it ends the call, whatever its class is."""


@contextmanager
def foreign() -> Iterator[None]:
    """Raise what the block raises as the cause of a `Foreign`."""
    try:
        yield
    except Foreign:
        raise
    except Exception as error:
        raise Foreign from error
