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


class Queue(Generic[Item]):
    """Like `queue.SimpleQueue`, but a timeout always ends ``get``.

    The ``get`` of `queue.SimpleQueue` waits for ever if its timeout is over before it has begun to
    wait, while a signal handler runs, or while another thread takes the item that woke it.

    As with that one, a signal handler may put an item while the code that it interrupts does.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._told = threading.Lock()  # held, unless an item came that nobody has looked for yet

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
                left = last - time.monotonic()
                if not self._told.acquire(timeout=min(max(0.0, left), _LOOK)) and left <= 0:
                    raise Empty from None
            else:
                if self._items:  # one telling may stand for several items
                    self._tell()
                return item

    def __len__(self) -> int:
        return len(self._items)

    def _tell(self) -> None:
        if self._told.locked():
            with suppress(RuntimeError):  # somebody else did in between
                self._told.release()


class Changes:
    """Tells those who wait for something that it may be so now; no lock is held meanwhile."""

    def __init__(self) -> None:
        self._waiting: set[Queue[None]] = set()

    def tell(self) -> None:
        """Let everybody who waits look again."""
        for change in self._waiting.copy():
            change.put(None)

    def wait_for(self, is_so: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *is_so*, for *timeout* seconds at the most; say whether it is."""
        last = _end_of(timeout)
        change: Queue[None] = Queue()
        self._waiting.add(change)
        try:
            while not is_so():
                left = last - time.monotonic()
                if left <= 0:
                    return False
                with suppress(Empty):
                    change.get(min(left, _LOOK))
            return True
        finally:
            self._waiting.discard(change)


def _end_of(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout
