"""The error for a request that the bridge refuses."""

from __future__ import annotations


class Refused(Exception):
    """Answer the request with *status*, ``{"error": message}`` and *headers*.

    A header such as Retry-After is given as ``Retry_After``.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple((name.replace("_", "-"), text) for name, text in headers.items())


def no_space() -> Refused:
    """Return the refusal of what a full disk has no room for."""
    return Refused(507, "The bridge has no space left")
