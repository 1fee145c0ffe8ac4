"""Nonces: milliseconds of the clock, each above the one before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeAlias


def _digits() -> str:
    return f"{int.from_bytes(os.urandom(4), 'big') % 1000:03}"


_Known: TypeAlias = tuple[int, dict[None, Any]]


class Nonces:
    """Milliseconds with three decimals, from *clock* (nanoseconds), followed by *digits*.

    The digits are drawn once. Two programs with one key come to the same thousandth now and then;
    if both send the same request then, only these digits make the signatures differ.

    There is no lock, because a signal handler that interrupts `next`, or a child forked at that
    moment, would wait for it: one `dict.setdefault` decides which nonce follows another one.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, digits: Callable[[], str] = _digits
    ) -> None:
        self._clock, self._digits = clock, digits
        # A nonce in thousandths, and the one after it, if any: so the last one is found, though a
        # slow thread may have written an older one here.
        self._known: _Known = (0, {})
        self.in_child()

    def next(self) -> str:
        """Return the milliseconds of now, or a thousandth more than last time."""
        now = self._clock() // 1000
        last, following = self._known
        while True:
            mine: _Known = (max(now, last + 1), {})
            follower = following.setdefault(None, mine)
            if follower is mine:
                break
            last, following = follower
        self._known = mine
        whole, decimals = divmod(mine[0], 1000)
        return f"{whole}.{decimals:03}{self._own}"

    def in_child(self) -> None:
        """After a fork, draw other digits, and keep nothing for threads that the parent has."""
        self._own = self._digits()
        self._known = (self._known[0], {})


nonces = Nonces()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=nonces.in_child)
