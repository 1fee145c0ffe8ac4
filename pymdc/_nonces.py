"""Nonces: whole milliseconds that no two programs of a user take on one machine."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable

try:
    import fcntl
except ImportError:  # on Windows, which has not all of the flags either
    fcntl = None  # type: ignore[assignment]
else:
    _FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

# Milliseconds ahead of the clock from which a note is taken for a mistake.
_TOO_FAR = 3_600_000

# How often a lock that another program has is tried, a millisecond apart: it may be suspended.
_TRIES = 500

_NUMBER = struct.Struct("<q")


class Nonces:
    """Whole milliseconds of *clock* (seconds), strictly increasing for all who share *note*."""

    def __init__(self, clock: Callable[[], float] = time.time, note: Note | None = None) -> None:
        self._clock, self._note = clock, note
        self._lock = threading.Lock()
        self._last = 0

    def next(self, ahead: int = 0) -> int:
        """Return the milliseconds of now, and *ahead* more, or one more than last time."""
        with self._lock:
            now = int(self._clock() * 1000)
            nonce = max(now + ahead, self._last + 1)
            if self._note:
                nonce = self._note.after(nonce, now + _TOO_FAR)
            self._last = nonce
            return nonce

    def renew(self) -> None:
        """Take a new lock: in a forked child the old one may be held by nobody who is there."""
        self._lock = threading.Lock()


class Note:
    """The last nonce of all programs of this user, eight bytes in the file at *path*.

    A process has one for a path, and asks it on one thread at a time.
    """

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path

    def after(self, nonce: int, limit: int) -> int:
        """Return *nonce*, or one more than what is noted if that is larger, and note it.

        What is noted does not count from *limit* on, nor where the file can't be used.
        """
        try:
            # It is not kept open: a program may close descriptors that it does not know.
            file = os.open(self._path(), _FLAGS, 0o600)
            try:
                _own(file)
                return _follow(file, nonce, limit)
            finally:
                os.close(file)
        except OSError:
            return nonce


def _own(file: int) -> None:
    """Lock *file* for this process; raise OSError where that can't be."""
    status = os.fstat(file)
    if status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise PermissionError("it is not a file of this user alone")
    for _ in range(_TRIES):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            time.sleep(0.001)
    raise TimeoutError("another program has the lock")


def _follow(file: int, nonce: int, limit: int) -> int:
    noted = os.pread(file, _NUMBER.size, 0)
    last = _NUMBER.unpack(noted)[0] if len(noted) == _NUMBER.size else 0
    if nonce <= last < limit:
        nonce = last + 1
    os.pwrite(file, _NUMBER.pack(nonce), 0)
    return nonce


def _path() -> str:
    return os.path.join(tempfile.gettempdir(), f"pymdc-{os.geteuid()}.nonce")


nonces = Nonces(note=Note(_path) if fcntl else None)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=nonces.renew)
