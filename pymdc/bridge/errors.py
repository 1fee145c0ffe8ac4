"""What the bridge refuses, and why."""

from __future__ import annotations


class Refused(Exception):
    """A request that is answered with *status* and ``{"error": message}``."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers.items())
