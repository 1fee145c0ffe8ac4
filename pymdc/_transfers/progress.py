"""Progress: how many bytes of a transfer are done, reported to a function of the caller's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pymdc._calls.capture import user_code

ProgressCallback = Callable[[int, int | None], object]

_INTERVAL = 0.05  # seconds between two reports


class Progress:
    """Calls *callback* with the bytes that are done and the *total*; the former only grow.

    The last report has the total twice, and is made only when the transfer has succeeded.
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
        """Report *done* bytes, unless the last report had as many or was made just before."""
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
    """Return the progress that is reported to *callback*; TypeError if that is no function."""
    if callback is not None and not callable(callback):
        raise TypeError(
            f"progress is {type(callback).__name__}; expected a function of two numbers"
        )
    return Progress(callback)
