"""Blocking work, done on threads while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from pymdc._calls.capture import outcome
from pymdc._calls.pool import Workers

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs blocking functions on threads.

    ``run`` gives each function a thread. ``run_db_only`` is for functions that take milliseconds:
    one thread runs all that wait, since with a thread each they would spend most of their time
    on waking each other.

    Executors of the standard library take no work once the main thread has ended, and a
    bridge serves until it is closed.
    """

    def __init__(self) -> None:
        self._workers = Workers(1)
        self._quiet = threading.Condition()
        self._running = 0
        self._db_jobs: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._turns: asyncio.Task[None] | None = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
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
        return _unwrapped(await done)  # type: ignore[no-any-return]  # it is what *function* returned

    async def run_db_only(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run *function*, which takes milliseconds, in its turn; return or raise what it does."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._db_jobs.append((partial(function, *args, **kwargs), done))
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())
        return _unwrapped(await done)  # type: ignore[no-any-return]  # as above

    async def _take_turns(self) -> None:
        while self._db_jobs:
            works, waiting = zip(*self._db_jobs, strict=True)
            self._db_jobs = []
            outcomes = await self.run(_do, list(works))
            for done, result in zip(waiting, outcomes, strict=True):
                _settle(done, result)
        self._turns = None

    def close(self) -> None:
        """Wait until nothing runs any more, and end the threads."""
        with self._quiet:
            self._quiet.wait_for(lambda: self._running == 0)
        self._workers.close()


def _do(works: list[Callable[[], Any]]) -> list[Any]:
    return [outcome(work) for work in works]


def _settle(done: asyncio.Future[Any], outcome: object) -> None:
    if not done.done():
        done.set_result(outcome)


def _unwrapped(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
