"""Blocking work, done on threads while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from pymdc._workers import Workers

P = ParamSpec("P")
T = TypeVar("T")


class Offload:
    """``await offload(function, ...)`` gives what ``function(...)`` does, on another thread.

    Executors of the standard library take no work once the main thread has ended, and a
    bridge serves until it is closed.
    """

    def __init__(self) -> None:
        self._workers = Workers(1)
        self._quiet = threading.Condition()
        self._running = 0

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *function* on a thread, and return or raise what it does."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def deliver(outcome: object) -> None:
            with self._quiet:
                self._running -= 1
                self._quiet.notify_all()
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_settle, done, outcome)

        with self._quiet:
            self._running += 1
        self._workers.start(partial(function, *args, **kwargs), deliver)
        outcome = await done
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # it is what *function* returned

    def close(self) -> None:
        """Wait until nothing runs any more, and end the threads."""
        with self._quiet:
            self._quiet.wait_for(lambda: self._running == 0)
        self._workers.close()


def _settle(done: asyncio.Future[Any], outcome: object) -> None:
    if not done.done():
        done.set_result(outcome)
