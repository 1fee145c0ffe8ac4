"""What can go wrong, as one or two lines and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import IntEnum

from pymdc.exceptions import (
    BridgeError,
    CertificateError,
    ChannelError,
    HTTPError,
    IntegrityError,
    NetworkError,
)


class Code(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    SIGN_IN = 4
    NETWORK = 5
    INTEGRITY = 6
    INTERRUPTED = 130


class Failure(Exception):
    """Ends a verb: *message* says what was wrong, *remedy* what to do, *code* is the exit code."""

    def __init__(self, message: str, code: Code = Code.FAILED, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.remedy = message, code, remedy

    def about(self, subject: str) -> Failure:
        """Return the same failure with *subject* before its message, unless that names it."""
        if self.message.startswith(f"{subject}: "):
            return self
        return Failure(f"{subject}: {self.message}", self.code, self.remedy)


_SIGN_IN = "sign in again: pymdc login"
_OTHER_KEY = f"{_SIGN_IN}; PYMDC_PRIVATE_KEY is set, and used unless there is a --profile"
_CLOCK = "is the clock right? pymdc doctor compares it with the bridge's"
_DOCTOR = "pymdc doctor looks for the reason"
_AUTHORITY = "export SSL_CERT_FILE=FILE.pem trusts the authorities in that file"
_REFUSALS = {
    "Bucket not found": (Code.NOT_FOUND, "pymdc buckets lists the buckets"),
    "File not found": (Code.NOT_FOUND, ""),
    "The requested file was not found": (Code.NOT_FOUND, ""),
    "Public key was not found": (Code.NOT_FOUND, "pymdc keys lists the keys"),
    "Public key not registered": (Code.SIGN_IN, _SIGN_IN),
    "Invalid email or password": (Code.SIGN_IN, ""),
    "Invalid signature": (Code.SIGN_IN, _SIGN_IN),
    "Invalid nonce supplied": (Code.SIGN_IN, _CLOCK),
    "No authentication strategy detected": (Code.SIGN_IN, _SIGN_IN),
    "User account has not been activated": (Code.SIGN_IN, "open the link in the mail"),
    "User account is disabled": (Code.SIGN_IN, "ask whoever runs the bridge"),
}


def failure_of(error: Exception) -> Failure:
    """Return *error*, which a call of the API raised or an operation on a file, as a failure."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, BridgeError):
        code, remedy = _REFUSALS.get(error.message, (Code.FAILED, ""))
        if remedy == _SIGN_IN and os.environ.get("PYMDC_PRIVATE_KEY"):
            remedy = _OTHER_KEY
        return Failure(f"the bridge refused: {error.message}", code, remedy)
    if isinstance(error, IntegrityError):
        return Failure(str(error), Code.INTEGRITY, "nothing was written; try again")
    if isinstance(error, CertificateError):
        return Failure(str(error), Code.NETWORK, _AUTHORITY)
    if isinstance(error, HTTPError):
        return Failure(str(error), Code.NETWORK, f"is that a bridge? {_DOCTOR}")
    if isinstance(error, NetworkError | ChannelError):
        return Failure(str(error), Code.NETWORK, _DOCTOR)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.FAILED
        return Failure(f"{where}{error.strerror}", code)
    return Failure(str(error) or type(error).__name__)


def code_of(failures: Iterable[Failure], done: int) -> Code:
    """Return the exit code if *done* things succeeded and others ended in *failures*."""
    codes = {failure.code for failure in failures}
    for code in (Code.INTERRUPTED, Code.SIGN_IN, Code.INTEGRITY, Code.NETWORK):
        if code in codes:
            return code
    if len(codes) == 1 and not done:
        return codes.pop()
    return Code.FAILED if codes else Code.DONE
