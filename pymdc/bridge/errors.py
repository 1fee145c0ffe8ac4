"""The errors: a request that the bridge refuses, a storage that does not answer or is wrong."""

from __future__ import annotations

import sys


class Refused(Exception):
    """Answer the request with *status*, ``{"error": message}`` and *headers*.

    A header such as Retry-After is given as ``Retry_After``.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple((name.replace("_", "-"), text) for name, text in headers.items())


class DamagedDatabaseError(OSError):
    """A page of the database is damaged; the message says so in one line."""


class UnavailableError(Exception):
    """The database or the store did not answer; the message says which."""


class DeadlockError(UnavailableError):
    """The transaction was ended because others waited for it, and it for them."""


class StoreError(OSError):
    """The store cannot be used as it is set up; the message says what is wrong in one line."""


def missing(error: ImportError, extras: str = "bridge") -> str:
    """Return a line that says how to install the package that is missing."""
    fault = f"{error.name} is missing" if error.name else str(error).partition("\n")[0]
    # Not by the name of the distribution: on the index that may be somebody else's.
    install = f"{sys.executable} -m pip install '.[{extras}]'"
    return f"{fault}: {install} in a clone of the project"
