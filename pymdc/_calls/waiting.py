"""Waits with reliable timeouts, which a signal handler may interrupt or end by raising."""

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

# Seconds between two checks of the condition. A signal just before a wait does not interrupt the
# wait, and a handler that raises may prevent a notification.
_POLL_INTERVAL = 0.5
_MAX_TIMEOUT = 1e9  # seconds; the limit of a lock is not far above


class Queue(Generic[Item]):
    """Like `queue.SimpleQueue`, but a timeout always ends ``get``.

    The ``get`` of `queue.SimpleQueue` waits for ever if its timeout passes before it starts to
    wait, while a signal handler runs, or while another thread takes the item that woke it.

    As with `queue.SimpleQueue`, a signal handler may put an item while it interrupts a ``put``.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._signal = _new_signal()  # set when an item was put

    def put(self, item: Item) -> None:
        """Add *item*."""
        self._items.append(item)
        self._notify()

    def get(self, timeout: float | None = None) -> Item:
        """Take the oldest item; wait at most *timeout* seconds for one, then raise `Empty`."""
        deadline = _deadline_of(timeout)
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                pass  # wait outside this block, so that what it raises has no IndexError as context
            else:
                if self._items:  # one signal may stand for several items
                    self._notify()
                return item
            left = deadline - time.monotonic()
            if not _wait(self._signal, left) and left <= 0:
                raise Empty

    def __len__(self) -> int:
        return len(self._items)

    def _notify(self) -> None:
        _set(self._signal)


class Changes:
    """Like `threading.Condition`, but no lock is held while the predicate is checked."""

    def __init__(self) -> None:
        self._signals: set[threading.Lock] = set()  # one for each waiting thread

    def notify(self, _source: object = None) -> None:
        """Wake every waiting thread, which then checks its predicate."""
        for signal in self._signals.copy():
            _set(signal)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *predicate* is true, at most *timeout* seconds; say whether it is."""
        deadline = _deadline_of(timeout)
        signal = _new_signal()
        try:
            self._signals.add(signal)
            while not predicate():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                _wait(signal, left)
            return True
        finally:
            self._signals.discard(signal)


def _new_signal() -> threading.Lock:
    """Return a signal that is not set: a lock that is held until the signal is set."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _set(signal: threading.Lock) -> None:
    if signal.locked():
        with suppress(RuntimeError):  # another thread has just set the signal
            signal.release()


def _wait(signal: threading.Lock, seconds: float) -> bool:
    """Wait for *signal*, at most until the next check; say whether it was set."""
    return signal.acquire(timeout=min(max(0.0, seconds), _POLL_INTERVAL))


def _deadline_of(timeout: float | None) -> float:
    if timeout is None:
        return math.inf
    seconds = min(timeout, _MAX_TIMEOUT)
    if math.isnan(seconds):
        raise ValueError("the timeout is nan; expected seconds")
    return time.monotonic() + seconds
