"""Turns for those who sign, for a while after the bridge refused a nonce."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pymdc._calls.cancel_scope import Scope
from pymdc._http.auth import Signature
from pymdc._http.retry import Sendings

# Seconds between two looks at whether a call that waits for its turn was ended.
_PATIENCE = 0.25

# Seconds for which those who sign take turns after a nonce was refused.
_STRICT = 1.0


class Turn:
    """Lets one sign and send at a time, where nonces that overtake each other are refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    @contextmanager
    def of(self, sendings: Sendings, scope: Scope) -> Iterator[None]:
        """Hold the turn of *sendings* in the block, if it needs one."""
        now = time.monotonic()
        if sendings.stale:
            self._until = now + _STRICT
        if now >= self._until or not isinstance(sendings.asks, Signature):
            yield
            return
        held = False
        while not held and time.monotonic() < self._until:
            scope.check()
            held = self._lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if held:
                self._lock.release()
