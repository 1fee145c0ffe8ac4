"""Nonces: whole milliseconds that no two programs of a user take on one machine."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

try:
    import fcntl
except ImportError:  # on Windows, which has not all of the flags either
    fcntl = None  # type: ignore[assignment]
else:
    # O_NONBLOCK: somebody else's file of that name may be made such that opening it takes long.
    _FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# Milliseconds that are taken at once at the most, and used as they come: first one, and twice as
# many each time, so that short programs do not run ahead of the clock. Taking them gives up the
# interpreter a few times, which is slow beside threads that compute.
AT_ONCE = 256

# Milliseconds for which they are taken singly, in order with other programs, after a refusal.
_STRICT = 1_000

# Milliseconds ahead from which what another program noted is the mistake of a clock.
_TOO_FAR = 600_000

# How often a lock that another program has is tried, a millisecond apart: it may be suspended.
_TRIES = 200

_NUMBER = struct.Struct("<q")


class Nonces:
    """Whole milliseconds of *clock* (seconds), strictly increasing; no other one of *note*'s."""

    def __init__(self, clock: Callable[[], float] = time.time, note: Note | None = None) -> None:
        self._clock, self._note = clock, note
        self.lock = threading.Lock()
        self._last = self._taken = self._strict = 0
        self._count = 1

    def next(self, ahead: int = 0) -> int:
        """Return the milliseconds of now, and *ahead* more, or one more than last time.

        Where it is to be *ahead*, an earlier one was refused, as out of order with another's.
        """
        with self.lock:
            now = int(self._clock() * 1000)
            nonce = max(now + ahead, self._last + 1)
            if ahead:
                self._taken, self._count, self._strict = 0, 1, now + _STRICT
            if nonce > self._taken and self._note:
                nonce = self._note.take(nonce, self._count)
                self._taken = nonce + self._count - 1
                if now >= self._strict:
                    self._count = min(2 * self._count, AT_ONCE)
            self._last = nonce
            return nonce

    def in_child(self) -> None:
        """Leave what is taken to the parent, after a fork for which the lock was held."""
        self._taken = 0
        self.lock.release()


class Note:
    """The last nonce that any program of this user has taken, eight bytes in the file at *path*."""

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path

    def take(self, nonce: int, count: int) -> int:
        """Take *nonce*, or what follows the noted one if that is larger, and *count* in all.

        Return the first of them: *nonce* itself where nothing can be noted.
        """
        try:
            # It is not kept open: a program may close descriptors that it does not know.
            file = os.open(self._path(), _FLAGS, 0o600)
            try:
                _own(file)
                return _take(file, nonce, count)
            finally:
                os.close(file)
        except OSError:
            return nonce


def _own(file: int) -> None:
    """Lock *file*; raise OSError where that can't be."""
    status = os.fstat(file)
    if status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise PermissionError("it is not a file of this user alone")
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.001)
    raise TimeoutError("another program has the lock")


def _take(file: int, nonce: int, count: int) -> int:
    noted = os.pread(file, _NUMBER.size, 0)
    last = _NUMBER.unpack(noted)[0] if len(noted) == _NUMBER.size else 0
    if nonce <= last < nonce + _TOO_FAR:
        nonce = last + 1
    with suppress(OSError):  # of a full disk; what was read is good all the same
        os.pwrite(file, _NUMBER.pack(nonce + count - 1), 0)
    return nonce


def _path() -> str:
    # Not TMPDIR: all programs have to find the same one.
    return f"/tmp/pymdc-{os.geteuid()}.nonce"


nonces = Nonces(note=Note(_path) if fcntl else None)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=nonces.lock.acquire,
        after_in_parent=nonces.lock.release,
        after_in_child=nonces.in_child,
    )
