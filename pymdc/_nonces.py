"""Nonces: whole milliseconds that never repeat, in a process and those that it forks."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress

try:
    import fcntl
except ImportError:  # where there is none, nothing forks
    fcntl = None  # type: ignore[assignment]

_NUMBER = struct.Struct("q")


class Nonces:
    """Whole milliseconds of *clock* (seconds), strictly increasing for all who share them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._memory: _Alone | _Family = _Alone()

    def next(self, ahead: int = 0) -> int:
        """Return the milliseconds of now, and *ahead* more, or one more than last time."""
        with self._lock:
            try:
                return self._next(ahead)
            except OSError:  # of the file: a child may have closed all that it did not open
                self._memory = _Alone(self._memory.last)
                return self._next(ahead)

    def _next(self, ahead: int) -> int:
        with self._memory as memory:
            memory.last = max(int(self._clock() * 1000) + ahead, memory.last + 1)
            return memory.last

    def share(self) -> None:
        """Share what comes from here on with the processes that are forked."""
        with self._lock, suppress(OSError):  # of the file; each of them goes on alone
            if isinstance(self._memory, _Alone):
                self._memory = _Family(self._memory.last)

    def renew(self) -> None:
        """Take a new lock: in a forked child the old one may be held by nobody who is there."""
        self._lock = threading.Lock()


class _Alone:
    """The last nonce of this process."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def __enter__(self) -> _Alone:
        return self

    def __exit__(self, *_exception: object) -> None:
        """There is nobody to be waited for."""


class _Family:
    """The last nonce of this process and all that are forked from here on, one at a time."""

    def __init__(self, last: int) -> None:
        self._memory = mmap.mmap(-1, _NUMBER.size)
        # The file has its lock from the system. It is never closed: its number may be another's.
        self._file, name = tempfile.mkstemp()
        os.unlink(name)
        self._status = os.fstat(self._file)
        self.last = last

    @property
    def last(self) -> int:
        """The last one."""
        return int(_NUMBER.unpack_from(self._memory)[0])

    @last.setter
    def last(self, nonce: int) -> None:
        _NUMBER.pack_into(self._memory, 0, nonce)

    def __enter__(self) -> _Family:
        if not os.path.samestat(os.fstat(self._file), self._status):
            raise OSError("its number means another file now")
        fcntl.lockf(self._file, fcntl.LOCK_EX)  # by this process, who loses it when it is killed
        return self

    def __exit__(self, *_exception: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)


nonces = Nonces()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=nonces.share, after_in_child=nonces.renew)
