"""Nonces: the time in milliseconds, each larger than the one before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeAlias


def _digits() -> str:
    return f"{int.from_bytes(os.urandom(4), 'big') % 1000:03}"


# A nonce in thousandths of a millisecond, and a dict with the next node, empty in the last node.
_Node: TypeAlias = tuple[int, dict[None, Any]]


class Nonces:
    """Milliseconds with three decimals, from *clock* (nanoseconds), followed by *digits*.

    The digits are drawn once per process. Two processes with one key sometimes take the same
    thousandth; if both send the same request, only the digits make their signatures differ.

    There is no lock, because a signal handler that interrupts `next`, or a child forked at that
    moment, would wait for it. Nonces form a linked list: `dict.setdefault` appends one atomically.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, digits: Callable[[], str] = _digits
    ) -> None:
        self._clock, self._digits = clock, digits
        # The last node or, if a slow thread assigned it late, an earlier one.
        self._last: _Node = (0, {})
        self.in_child()

    def next(self) -> str:
        """Return the current time, or a thousandth more than the last nonce if that is larger."""
        now = self._clock() // 1000
        last, link = self._last
        while True:
            node: _Node = (max(now, last + 1), {})
            successor = link.setdefault(None, node)
            if successor is node:
                break
            last, link = successor
        self._last = node
        milliseconds, decimals = divmod(node[0], 1000)
        return f"{milliseconds}.{decimals:03}{self._suffix}"

    def in_child(self) -> None:
        """After a fork, draw new digits and start a new list at the last nonce."""
        self._suffix = self._digits()
        self._last = (self._last[0], {})


nonces = Nonces()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=nonces.in_child)
