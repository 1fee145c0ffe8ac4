"""What the bridge refuses, and why."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class Refused(Exception):
    """A request that is answered with *status* and ``{"error": message}``."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers.items())


def found(thing: T | None, message: str) -> T:
    """Return *thing*; where there is none, refuse with 404 and *message*."""
    if thing is None:
        raise Refused(404, message)
    return thing
