"""One thing done on another thread while this one goes on."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from pymdc._arguments import Callback
from pymdc._calls.capture import Work

Start = Callable[[Work, Callback], None]


class Aside:
    """Does one thing at a time, by *start*, which does work on a thread and delivers its outcome.

    What goes wrong is raised by the next call of a method.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._outcomes: SimpleQueue[Any] = SimpleQueue()
        self._busy = False

    def do(self, work: Work) -> None:
        """Have *work* done, once what was begun before is."""
        self.wait()
        self._busy = True
        self._start(work, self._outcomes.put)

    def wait(self) -> None:
        """Wait until nothing is being done."""
        if self._busy:
            outcome = self._outcomes.get()
            self._busy = False
            if isinstance(outcome, BaseException):
                raise outcome
