"""How far a transfer has come, told to a function of the caller's, now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pymdc._calls.capture import user_code

Function = Callable[[int, int | None], object]

_PAUSE = 0.05  # seconds between two tellings


class Progress:
    """Calls *function* with the bytes that are done and the *total*, never going back.

    The last time is with the total twice, and only when the transfer has succeeded.
    """

    def __init__(
        self, function: Function | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total: int | None = None
        self._function = function
        self._clock = clock
        self._told = 0
        self._next = -math.inf

    def tell(self, done: int) -> None:
        """Tell that *done* bytes are done, unless that was just told or done before."""
        if self._function is None or done <= self._told or done == self.total:
            return
        now = self._clock()
        if now >= self._next:
            self._next, self._told = now + _PAUSE, done
            with user_code():
                self._function(done, self.total)

    def finish(self, total: int) -> None:
        """Tell that the transfer has succeeded."""
        if self._function is not None:
            with user_code():
                self._function(total, total)


def checked(function: object) -> Progress:
    """Return the progress that tells *function*, if there is one; TypeError for what is none."""
    if function is not None and not callable(function):
        raise TypeError(
            f"progress is {type(function).__name__}; expected a function of two numbers"
        )
    return Progress(function)
