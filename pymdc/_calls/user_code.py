"""What the caller's own functions and files raise, kept apart from what the network does."""

from __future__ import annotations

from types import TracebackType


class Foreign(Exception):
    """Something of the caller's raised the cause: it ends the call, whatever its class is."""


class _Block:
    # Not made by contextlib: up to Python 3.10 that makes a cycle of an exception that only goes
    # through, which would keep what stands in the block alive.
    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, Foreign):
            raise Foreign from error


def foreign() -> _Block:
    """Raise what the block raises as the cause of a `Foreign`."""
    return _Block()
