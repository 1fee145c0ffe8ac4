"""Progress: the bytes of a transfer that are done, reported to the caller's callback.

The callback is a function of two numbers, the bytes done and the total. It may also be an object
with a method ``begin(name)``, which is called when the transfer of the file *name* begins and
returns such a function. If that function has a method ``end()``, it is called when the transfer has
ended; the transfer has succeeded if the last two numbers were equal, and has failed if not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pymdc._calls.capture import user_code

Report = Callable[[int, int | None], object]


class TransferObserver(Protocol):
    """An object that is told when a transfer begins."""

    def begin(self, name: str) -> Report:
        """Return the function to report to; it may have a method ``end()``."""


ProgressCallback = Report | TransferObserver

_INTERVAL = 0.05  # seconds between two reports


class Progress:
    """Calls *callback* with the bytes done, which never decrease, and the *total*.

    The last report has the total twice, and is made only if the transfer has succeeded.
    *observer* gives the callback when the transfer begins; the ``with`` block ends it.
    """

    def __init__(
        self,
        callback: Report | None,
        observer: TransferObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total: int | None = None
        self._callback = callback
        self._observer = observer
        self._clock = clock
        self._last_reported = 0
        self._next_report = -math.inf

    def begin(self, name: str) -> Progress:
        """Tell the observer that the transfer of the file *name* begins."""
        if self._observer is not None:
            with user_code():
                self._callback = self._observer.begin(name)
        return self

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        end = getattr(self._callback, "end", None) if self._observer is not None else None
        if end is None:
            return
        if kind is None:
            with user_code():
                end()
        else:
            with suppress(Exception):  # the transfer has failed for another reason
                end()

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
    """Return a `Progress` for *callback*; TypeError if it is no function and has no begin()."""
    if callable(getattr(callback, "begin", None)):
        observer: Any = callback
        return Progress(None, observer)
    if callback is not None and not callable(callback):
        raise TypeError(
            f"progress is {type(callback).__name__}; expected a function of two numbers"
            " or an object with begin()"
        )
    return Progress(callback)
