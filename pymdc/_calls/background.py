"""Jobs on another thread while the current thread continues."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from pymdc._arguments import Callback
from pymdc._calls.capture import Job

Start = Callable[[Job, Callback], None]


class BackgroundTask:
    """Does one job at a time on another thread.

    *start* does a job on a thread, and passes the outcome to a function.
    If the job raises, the next call of a method of this task raises that exception.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._outcomes: SimpleQueue[Any] = SimpleQueue()
        self._busy = False

    def do(self, job: Job) -> None:
        """Wait until the previous job is done, then start *job*."""
        self.wait()
        self._busy = True
        self._start(job, self._outcomes.put)

    def wait(self) -> None:
        """Wait until the job that was started is done."""
        if self._busy:
            outcome = self._outcomes.get()
            self._busy = False
            if isinstance(outcome, BaseException):
                raise outcome
