"""Threads for blocking functions, so that the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

from pymdc.bridge.settings import MAX_IDLE_THREADS, MAX_THREADS

P = ParamSpec("P")
T = TypeVar("T")
Result: TypeAlias = tuple[Any, BaseException | None]  # what a function returned, what it raised


class _Job(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[[], Any]


class Threads:
    """Runs blocking functions on threads, for one event loop.

    `run` gives each function a thread of its own; beyond a number of them, functions wait.
    `run_db_only` is for functions that only query the database. At most *lanes* threads run all
    functions that wait: with a thread for each, the threads would spend most of their time on
    waking each other.

    The executors of the standard library accept no work once the main thread has ended, but a
    bridge serves until it is closed. Python 3.12.0 to 3.12.2 can then start no thread either, so
    one thread is started at the beginning, and functions wait for it if there is no other thread.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()  # None ends a thread
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads without a job; if negative, jobs without a thread
        self._slots = asyncio.Semaphore(MAX_THREADS)
        self._db_jobs: list[_Job] = []
        self._lanes = lanes
        self._db_tasks: set[asyncio.Task[None]] = set()
        self._start_thread()

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *function* on a thread of its own; return or raise what it returns or raises."""
        async with self._slots:
            return await self._run(partial(function, *args, **kwargs))

    async def run_db_only(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run *function*, which only queries the database; return or raise as `run` does."""
        job = _job(partial(function, *args, **kwargs))
        self._db_jobs.append(job)
        if len(self._db_tasks) < self._lanes:
            self._db_tasks.add(asyncio.create_task(self._run_db_jobs()))
        try:
            return await job.future  # type: ignore[no-any-return]  # the result of *function*
        finally:
            del job  # as above

    def waiting(self) -> int:
        """Return how many functions wait for the thread of the database."""
        return len(self._db_jobs)

    def close(self) -> None:
        """Wait until all functions have returned, and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    async def _run(self, function: Callable[[], T]) -> T:
        if self._free < 1:
            with suppress(RuntimeError):  # no thread can be started
                self._start_thread()
        self._free -= 1
        job = _job(function)
        self._queue.put(job)
        try:
            return await job.future  # type: ignore[no-any-return]  # the result of *function*
        finally:
            del job  # else a cycle: its exception has a traceback, which has this frame

    async def _run_db_jobs(self) -> None:
        while self._db_jobs:
            jobs, self._db_jobs = self._db_jobs, []
            results = await self._run(partial(_capture_all, [job.function for job in jobs]))
            for job, result in zip(jobs, results, strict=True):
                _deliver(job.future, result)
        # Here, not when the task is done: until then a job might wait for it in vain.
        self._db_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _start_thread(self) -> None:
        # Not a daemon: like the server, it works until the bridge is closed.
        thread = threading.Thread(target=self._work, name="pymdc-bridge-worker")
        thread.start()
        self._threads = [other for other in self._threads if other.is_alive()]
        self._threads.append(thread)
        self._free += 1

    def _work(self) -> None:
        while job := self._queue.get():
            result = _capture(job.function)
            with suppress(RuntimeError):  # the loop is closed, so nothing waits for the result
                job.loop.call_soon_threadsafe(self._finish, job.future, result)
            del job, result  # an idle thread keeps no data in memory

    def _finish(self, future: asyncio.Future[Any], result: Result) -> None:
        _deliver(future, result)
        if self._free < MAX_IDLE_THREADS:
            self._free += 1
        else:
            self._queue.put(None)


def _job(function: Callable[[], Any]) -> _Job:
    loop = asyncio.get_running_loop()
    return _Job(loop, loop.create_future(), function)


def _capture(function: Callable[[], Any]) -> Result:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001  # raised again where *function* is awaited
        return None, error


def _capture_all(functions: list[Callable[[], Any]]) -> list[Result]:
    return [_capture(function) for function in functions]


def _deliver(future: asyncio.Future[Any], result: Result) -> None:
    value, error = result
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
