"""Waits that signal handlers may interrupt, and end by an exception, and whose timeouts hold."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Seconds between two looks: a signal that comes just before a wait does not interrupt it, and a
# handler that raises may prevent that somebody is told.
_LOOK = 0.5
_LONGEST = 1e9  # seconds; a lock's own bound is not far above it


class Queue(Generic[Item]):
    """Like `queue.SimpleQueue`, but a timeout always ends ``get``.

    The ``get`` of `queue.SimpleQueue` waits for ever if its timeout is over before it has begun to
    wait, while a signal handler runs, or while another thread takes the item that woke it.

    As with that one, a signal handler may put an item while the code that it interrupts does.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._told = _untold()  # until an item comes that nobody has looked for yet

    def put(self, item: Item) -> None:
        """Add *item*, for one of those that wait or come later."""
        self._items.append(item)
        self._tell()

    def get(self, timeout: float | None = None) -> Item:
        """Take the oldest item, waiting *timeout* seconds at the most; `Empty` if none comes."""
        last = _end_of(timeout)
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                pass  # what is raised while it waits came of nothing else
            else:
                if self._items:  # one telling may stand for several items
                    self._tell()
                return item
            left = last - time.monotonic()
            if not _wait(self._told, left) and left <= 0:
                raise Empty

    def __len__(self) -> int:
        return len(self._items)

    def _tell(self) -> None:
        _tell(self._told)


class Changes:
    """Tells those who wait for something that it may be so now; no lock is held meanwhile."""

    def __init__(self) -> None:
        self._waiting: set[threading.Lock] = set()

    def tell(self, _about: object = None) -> None:
        """Let everybody who waits look again."""
        for told in self._waiting.copy():
            _tell(told)

    def wait_for(self, is_so: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *is_so*, for *timeout* seconds at the most; say whether it is."""
        last = _end_of(timeout)
        told = _untold()
        try:
            self._waiting.add(told)
            while not is_so():
                left = last - time.monotonic()
                if left <= 0:
                    return False
                _wait(told, left)
            return True
        finally:
            self._waiting.discard(told)


def _untold() -> threading.Lock:
    """Return a lock that is held until somebody is told."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _tell(told: threading.Lock) -> None:
    if told.locked():
        with suppress(RuntimeError):  # somebody else did in between
            told.release()


def _wait(told: threading.Lock, seconds: float) -> bool:
    """Wait to be told, until it is time to look; say whether it happened."""
    return told.acquire(timeout=min(max(0.0, seconds), _LOOK))


def _end_of(timeout: float | None) -> float:
    if timeout is None:
        return math.inf
    seconds = min(timeout, _LONGEST)
    if math.isnan(seconds):
        raise ValueError("the timeout is nan; expected seconds")
    return time.monotonic() + seconds
