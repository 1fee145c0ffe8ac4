"""Functions that run on threads while an event loop goes on."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from pymdc.bridge.serving.threads import Threads
from pymdc.bridge.settings import MAX_IDLE_THREADS, MAX_THREADS

Run = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture
def threads() -> Iterator[Threads]:
    before = threading.active_count()
    with closing(Threads()) as running:
        yield running
    assert threading.active_count() == before, "closing ends every thread"


@pytest.fixture(params=["run", "run_db_only"])
def run(threads: Threads, request: pytest.FixtureRequest) -> Run:
    method: Run = getattr(threads, request.param)
    return method


class Large:
    """Something that should not stay in memory."""


def test_function_runs_on_another_thread_with_its_arguments(run: Run) -> None:
    def function(first: int, *, second: int) -> tuple[int, int, str]:
        return first, second, threading.current_thread().name

    assert asyncio.run(run(function, 1, second=2)) == (1, 2, "pymdc-bridge-worker")


def test_exception_is_raised_where_the_function_is_awaited(run: Run) -> None:
    def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as raised:
        asyncio.run(run(fail))
    assert "in fail" in "".join(traceback.format_tb(raised.value.__traceback__))


def test_exception_keeps_nothing_in_memory_once_it_is_handled(run: Run) -> None:
    seen: list[weakref.ref[Large]] = []

    def fail(large: Large) -> None:
        seen.append(weakref.ref(large))
        raise LookupError("lost")

    async def handle() -> None:
        for _ in range(3):
            with suppress(LookupError):
                await run(fail, Large())
        await run(int)  # until here a thread may be about to forget the last one

    gc.collect()
    gc.disable()
    try:
        asyncio.run(handle())
        assert [reference() for reference in seen] == [None] * 3
    finally:
        gc.enable()


def test_functions_have_a_thread_each(threads: Threads) -> None:
    together = threading.Barrier(2 * MAX_IDLE_THREADS)

    async def meet() -> None:
        await asyncio.gather(*(threads.run(together.wait, 20) for _ in range(together.parties)))

    asyncio.run(meet())
    assert len(threads._threads) == together.parties


def test_functions_beyond_a_number_wait_but_not_those_of_the_database(threads: Threads) -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def block() -> bool:
        begun.release()
        return release.wait(20)

    async def run_many() -> list[bool]:
        tasks = [asyncio.create_task(threads.run(block)) for _ in range(MAX_THREADS + 20)]
        await asyncio.sleep(0)
        for _ in range(MAX_THREADS):
            begun.acquire()
        assert await threads.run_db_only(begun.acquire, False) is False
        assert len(threads._threads) == MAX_THREADS + 1
        release.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run_many()) == (MAX_THREADS + 20) * [True]


def test_threads_beyond_a_number_end_when_they_are_idle(threads: Threads) -> None:
    together = threading.Barrier(MAX_IDLE_THREADS + 4)
    before = threading.active_count() - 1

    async def meet() -> None:
        await asyncio.gather(*(threads.run(together.wait, 20) for _ in range(together.parties)))
        while threading.active_count() > before + MAX_IDLE_THREADS:
            await asyncio.sleep(0)

    asyncio.run(meet())
    assert threading.active_count() == before + MAX_IDLE_THREADS


def test_database_functions_wait_for_each_other_and_for_no_other_function(threads: Threads) -> None:
    running, most, release = 0, 0, threading.Event()

    def query(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1
        return number

    async def ask() -> list[int]:
        blocked = asyncio.create_task(threads.run(release.wait, 20))
        try:
            return await asyncio.gather(*(threads.run_db_only(query, n) for n in range(100)))
        finally:
            release.set()
            assert await blocked

    assert asyncio.run(ask()) == list(range(100))
    assert most == 1


def test_failing_database_function_harms_no_other_one(threads: Threads) -> None:
    async def ask() -> list[object]:
        numbers = (threads.run_db_only(divmod, 6, number) for number in (2, 0, 3))
        return await asyncio.gather(*numbers, return_exceptions=True)

    first, failure, last = asyncio.run(ask())
    assert (first, last) == ((3, 0), (2, 0))
    assert isinstance(failure, ZeroDivisionError)


def test_cancelled_waiter_leaves_the_function_to_end(run: Run, threads: Threads) -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        release.wait(20)
        ended.set()

    async def cancel() -> None:
        task = asyncio.create_task(run(function))
        await threads.run(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert await run(lambda: "next") == "next"

    asyncio.run(cancel())
    threads.close()
    assert ended.is_set()


def test_close_waits_for_a_function_whose_loop_is_closed(threads: Threads) -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        release.wait(20)
        ended.set()

    async def leave() -> None:
        task = asyncio.create_task(threads.run(function))
        await asyncio.sleep(0)
        begun.wait(20)
        task.cancel()

    asyncio.run(leave())
    release.set()
    threads.close()
    assert ended.is_set()


def test_function_waits_for_a_thread_where_none_can_be_started(threads: Threads) -> None:
    async def ask() -> list[int]:
        return await asyncio.gather(*(threads.run(int, number) for number in range(5)))

    usual = threading.stack_size(2**47)  # the whole address space, so no thread can be started
    try:
        with pytest.raises(RuntimeError):
            Threads()
        assert asyncio.run(ask()) == list(range(5))
    finally:
        threading.stack_size(usual)
    assert len(threads._threads) == 1
