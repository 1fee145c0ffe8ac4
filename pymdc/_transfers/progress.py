"""Progress: the bytes of a transfer that are done, reported to the caller's callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pymdc._calls.capture import user_code

ProgressCallback = Callable[[int, int | None], object]

_INTERVAL = 0.05  # seconds between two reports


class Progress:
    """Calls *callback* with the bytes done, which never decrease, and the *total*.

    The last report has the total twice, and is made only if the transfer has succeeded.
    """

    def __init__(
        self, callback: ProgressCallback | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total: int | None = None
        self._callback = callback
        self._clock = clock
        self._last_reported = 0
        self._next_report = -math.inf

    def report(self, done: int) -> None:
        """Report *done* bytes, unless as many were reported or the last report is too recent."""
        if self._callback is None or done <= self._last_reported or done == self.total:
            return
        now = self._clock()
        if now >= self._next_report:
            self._next_report, self._last_reported = now + _INTERVAL, done
            with user_code():
                self._callback(done, self.total)

    def finish(self, total: int) -> None:
        """Report that the transfer has succeeded."""
        if self._callback is not None:
            with user_code():
                self._callback(total, total)


def check_progress(callback: object) -> Progress:
    """Return a `Progress` for *callback*; TypeError if it is not a function."""
    if callback is not None and not callable(callback):
        raise TypeError(
            f"progress is {type(callback).__name__}; expected a function of two numbers"
        )
    return Progress(callback)
