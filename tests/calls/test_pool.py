"""The worker pool: calls run exactly once, in order, and without blocking each other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from modes import PATIENCE

from pymdc import Call
from pymdc._calls import waiting
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.monitor import monitor
from pymdc._calls.pool import WorkerPool
from pymdc._calls.threads import WorkerThreads
from pymdc._calls.waiting import Queue
from pymdc.exceptions import Cancelled


class Workers(WorkerPool):
    """A worker pool that gives each call a cancel scope, as a client does."""

    def run(self, work: Any, scope: CancelScope | None = None) -> Any:
        return super().run(lambda scope: work(), scope or CancelScope())

    def submit(self, work: Any, callback: Any, scope: CancelScope | None = None) -> Call:
        return super().submit(lambda scope: work(), callback, scope or CancelScope())


@pytest.fixture(params=[1, 4], ids=["one worker", "four workers"])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    made = Workers(request.param)
    yield made
    made.close()


@pytest.fixture
def one_worker() -> Iterator[Workers]:
    made = Workers(1)
    yield made
    made.close()


def ignore(value: object) -> None:
    """Do nothing with *value*."""


def fail() -> Any:
    raise LookupError("no")


def occupy(workers: Workers, count: int = 1) -> Callable[[], None]:
    """Keep *count* workers busy with callback calls; return a function that releases them."""
    busy, free = threading.Barrier(count + 1), threading.Event()

    def wait() -> None:
        busy.wait(PATIENCE)
        free.wait(PATIENCE)

    for _ in range(count):
        workers.submit(wait, ignore)
    busy.wait(PATIENCE)
    return free.set


def test_blocking_call_returns_value_or_exception(workers: Workers) -> None:
    assert workers.run(lambda: {"id": 1}) == {"id": 1}
    assert isinstance(workers.run(fail), LookupError)


def test_blocking_call_runs_on_worker(workers: Workers) -> None:
    assert workers.run(threading.current_thread) is not threading.current_thread()


def test_callback_gets_value_or_exception_once(workers: Workers) -> None:
    for work, kind in ((dict, dict), (fail, LookupError)):
        got: list[object] = []
        call = workers.submit(work, got.append)
        call.join(PATIENCE)
        assert [type(value) for value in got] == [kind]
        assert call.result() is got[0]


def test_call_is_alive_until_its_callback_has_returned(workers: Workers) -> None:
    began, go_on = threading.Event(), threading.Event()
    released: list[bool] = []

    def callback(value: object) -> None:
        began.set()
        released.append(go_on.wait(PATIENCE))

    call = workers.submit(dict, callback)
    began.wait(PATIENCE)
    assert call.is_alive()
    assert not call.done()
    call.join(timeout=0)
    go_on.set()
    call.join()
    assert not call.is_alive()
    assert call.done()
    assert released == [True]


def test_exception_of_callback_is_logged_and_ends_no_worker(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_in_callback(value: object) -> None:
        raise ZeroDivisionError("in the callback")

    with caplog.at_level(logging.ERROR, "pymdc"):
        call = workers.submit(lambda: "value", fail_in_callback)
        assert call.result(PATIENCE) == "value"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "fail_in_callback" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert workers.run(lambda: 1) == 1


def test_system_exit_in_callback_ends_no_worker(
    one_worker: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(value: object) -> None:
        raise SystemExit(3)

    assert one_worker.submit(dict, leave).result(PATIENCE) == {}
    assert one_worker.submit(dict, ignore).result(PATIENCE) == {}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_log_handler_that_raises_keeps_no_call_from_ending(
    one_worker: Workers, kind: type[BaseException]
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise kind("broken")

    logger, broken = logging.getLogger("pymdc"), Broken(logging.ERROR)
    logger.addHandler(broken)
    try:
        call = one_worker.submit(lambda: "value", lambda value: 1 / 0)
        assert call.result(PATIENCE) == "value"
        assert one_worker.submit(dict, ignore).result(PATIENCE) == {}
        assert one_worker.wait_idle(PATIENCE)
    finally:
        logger.removeHandler(broken)


def test_interrupted_start_of_a_thread_leaves_the_queue_usable(
    one_worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, interrupts = one_worker.threads.spawn, [KeyboardInterrupt]

    def interrupted(job: Callable[[], object]) -> bool:
        if interrupts:
            raise interrupts.pop()
        return spawn(job)

    monkeypatch.setattr(one_worker.threads, "spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one_worker.submit(dict, ignore)
    assert one_worker.submit(dict, ignore).result(PATIENCE) == {}
    assert one_worker.wait_idle(PATIENCE)


def test_system_exit_in_done_callback_ends_no_worker(
    one_worker: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    release = occupy(one_worker)
    call = one_worker.submit(dict, ignore)
    call.add_done_callback(lambda call: sys.exit(3))
    release()
    assert call.result(PATIENCE) == {}
    assert one_worker.submit(dict, ignore).result(PATIENCE) == {}
    assert one_worker.wait_idle(PATIENCE)
    assert "SystemExit" in caplog.text


def test_callback_calls_at_once_are_limited_to_size() -> None:
    workers = Workers(3)
    lock, running, most = threading.Lock(), 0, 0
    full = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(PATIENCE)
        with lock:
            running -= 1

    calls = [workers.submit(work, ignore) for _ in range(30)]
    concurrent.futures.wait(calls, PATIENCE)
    workers.close()
    assert most == 3


def test_queued_calls_run_in_order(one_worker: Workers) -> None:
    order: list[int] = []
    release = occupy(one_worker)
    calls = [one_worker.submit(partial(int, n), order.append) for n in range(50)]
    release()
    concurrent.futures.wait(calls, PATIENCE)
    assert order == list(range(50))


def test_blocking_call_bypasses_queue(one_worker: Workers) -> None:
    release = occupy(one_worker)
    queued = [one_worker.submit(dict, ignore) for _ in range(1000)]
    assert one_worker.run(lambda: "at once") == "at once"
    assert not any(call.done() for call in queued)
    release()


def test_blocking_calls_nest_inside_callbacks(one_worker: Workers) -> None:
    depths: list[int] = []

    def callback(value: int) -> None:
        inner = one_worker.run(lambda: one_worker.run(lambda: one_worker.run(lambda: value + 3)))
        depths.append(inner)

    assert one_worker.submit(lambda: 1, callback).result(PATIENCE) == 1
    assert depths == [4]


def test_callback_may_wait_for_thread_that_makes_blocking_call(one_worker: Workers) -> None:
    got: list[object] = []

    def callback(value: object) -> None:
        thread = threading.Thread(target=lambda: got.append(one_worker.run(lambda: "inner")))
        thread.start()
        thread.join(PATIENCE)

    one_worker.submit(dict, callback).join(PATIENCE)
    assert got == ["inner"]


def test_chain_of_callbacks_does_not_recurse(one_worker: Workers) -> None:
    ended, depth = threading.Event(), 0

    def callback(value: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 3000:
            ended.set()
        else:
            one_worker.submit(dict, callback)

    one_worker.submit(dict, callback)
    assert ended.wait(PATIENCE)


def test_call_cancelled_in_queue_never_runs_and_its_callback_gets_cancelled(
    one_worker: Workers,
) -> None:
    ran: list[int] = []
    got: list[object] = []
    release = occupy(one_worker)
    call = one_worker.submit(lambda: ran.append(1), got.append)
    assert call.cancel()
    call.join(PATIENCE)
    assert not call.cancel()
    release()
    assert ran == []
    assert [type(value) for value in got] == [Cancelled]
    assert call.result() is got[0]


def test_running_call_is_cancelled_and_finished_call_is_not(one_worker: Workers) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        go_on.wait(PATIENCE)
        return "done"

    got: list[object] = []
    call = one_worker.submit(work, got.append)
    began.wait(PATIENCE)
    assert call.cancel()
    go_on.set()
    assert isinstance(call.result(PATIENCE), Cancelled)
    assert not call.cancel()
    assert got == [call.result()]


def test_callbacks_of_cancelled_calls_run_while_all_workers_are_busy(one_worker: Workers) -> None:
    release = occupy(one_worker)
    got: list[object] = []
    calls = [one_worker.submit(dict, got.append) for _ in range(200)]
    for call in calls:
        assert call.cancel()
    concurrent.futures.wait(calls, PATIENCE)
    assert [type(value) for value in got] == [Cancelled] * 200
    release()


def test_callback_that_waits_for_its_own_call_gets_runtime_error(one_worker: Workers) -> None:
    caught: list[BaseException] = []
    made: list[Call] = []
    there = threading.Event()

    def callback(value: object) -> None:
        there.wait(PATIENCE)
        for wait in (made[0].join, made[0].result, made[0].exception):
            try:
                wait()
            except RuntimeError as error:
                caught.append(error)

    made.append(one_worker.submit(dict, callback))
    there.set()
    made[0].join(PATIENCE)
    assert [str(error) for error in caught] == ["a callback cannot wait for its own call"] * 3


@pytest.mark.parametrize("wait", [Call.join, Call.result, Call.exception])
def test_callback_may_wait_for_call_queued_behind_it(
    one_worker: Workers, wait: Callable[[Call, float], object]
) -> None:
    done: list[bool] = []

    def callback(value: object) -> None:
        call = one_worker.submit(dict, ignore)
        wait(call, PATIENCE)
        done.append(call.done())

    one_worker.submit(dict, callback).join(PATIENCE)
    assert done == [True]


def test_callback_of_cancelled_call_runs_while_another_callback_blocks(one_worker: Workers) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block(value: object) -> None:
        blocked.set()
        go_on.wait(PATIENCE)

    def wait_for_the_last(value: object) -> None:
        last.join(PATIENCE)
        done.append(last.done())

    done: list[bool] = []
    release = occupy(one_worker)
    first, waiting, last = (
        one_worker.submit(dict, callback) for callback in (block, wait_for_the_last, ignore)
    )
    assert first.cancel()
    assert blocked.wait(PATIENCE)
    assert last.cancel()
    release()
    waiting.join(PATIENCE)
    assert done == [True]
    assert first.is_alive()
    go_on.set()


def test_call_is_future(workers: Workers) -> None:
    calls = [workers.submit(partial(int, n), ignore) for n in range(5)]
    assert {call.result() for call in concurrent.futures.as_completed(calls, PATIENCE)} == {
        *range(5)
    }

    async def wait() -> object:
        return await asyncio.wrap_future(workers.submit(lambda: "awaited", ignore))

    assert asyncio.run(wait()) == "awaited"


def test_close_waits_for_chains_of_callbacks_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    got: list[int] = []
    workers = Workers(2)

    def callback(depth: int) -> None:
        got.append(depth)
        if depth < 5:
            workers.submit(lambda: depth + 1, callback)

    workers.run(dict)
    for _ in range(10):
        workers.submit(lambda: 1, callback)
    workers.close()
    assert sorted(got) == sorted([1, 2, 3, 4, 5] * 10)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("kind", ["callback", "blocking"])
def test_wait_for_idle_pool_is_woken_by_the_last_call(
    one_worker: Workers, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_POLL_INTERVAL", 1e6)  # so that nothing else wakes the waiter
    began, go_on = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(PATIENCE)

    if kind == "callback":
        one_worker.submit(work, ignore)
    else:
        threading.Thread(target=one_worker.run, args=[work]).start()
    began.wait(PATIENCE)
    ends: list[bool] = []
    waiter = threading.Thread(target=lambda: ends.append(one_worker.wait_idle()))
    waiter.start()
    while not monitor.idle_changes._signals:
        threading.Event().wait(0.001)
    go_on.set()
    waiter.join(PATIENCE)
    assert ends == [True]


def test_close_in_callback_does_not_wait_for_itself() -> None:
    workers = Workers(1)
    call = workers.submit(dict, lambda value: workers.close())
    assert call.result(PATIENCE) == {}
    workers.close()


class InterceptingQueue(Queue[Any]):
    """Calls *meanwhile* when the second job is put; ``watched`` is set when a job is awaited."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = [meanwhile, dict]
        self.watched = threading.Event()

    def get(self, timeout: float | None = None) -> Any:
        self.watched.set()
        return super().get(timeout)

    def put(self, item: Any) -> None:
        if item:
            self._meanwhile.pop()()
        super().put(item)


def test_job_submitted_while_threads_close_is_done() -> None:
    def close() -> None:
        closing.start()
        closing.join(0.1)  # it cannot end if the job is put first

    threads, rested, done = WorkerThreads(), threading.Event(), threading.Event()
    closing = threading.Thread(target=threads.close)
    threads._jobs = queue = InterceptingQueue(close)
    threads.spawn(rested.set)
    assert queue.watched.wait(PATIENCE)
    threads.spawn(done.set)
    assert done.wait(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_ended_threads_are_forgotten(workers: Workers) -> None:
    workers.threads.close()
    for _ in range(50):
        workers.run(threading.current_thread).join(PATIENCE)
    assert len(workers.threads._all) == 1


def monitors() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "pymdc-monitor" and not thread.daemon
    ]


def test_process_is_held_only_while_callback_is_outstanding(one_worker: Workers) -> None:
    assert monitors() == []
    release = occupy(one_worker)
    (holding,) = monitors()
    release()
    holding.join(PATIENCE)
    assert monitors() == []


class PausingHandler(logging.Handler):
    """Blocks the thread that logs something until ``go_on`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.go_on = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.held.set()
        self.go_on.wait(PATIENCE)


def test_process_is_held_by_call_queued_while_worker_finishes_last_one(
    one_worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(call: object) -> None:
        raise SystemExit

    handler, end = PausingHandler(), threading.Event()
    monkeypatch.setattr(logging.getLogger("pymdc"), "handlers", [handler])
    one_worker.submit(partial(end.wait, PATIENCE), ignore).add_done_callback(leave)
    (holding,) = monitors()
    end.set()
    assert handler.held.wait(PATIENCE)
    holding.join(PATIENCE)
    one_worker.submit(dict, ignore)
    assert len(monitors()) == 1
    handler.go_on.set()


def test_close_does_not_wait_for_thread_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    named, released = threading.Event(), threading.Event()
    set_ident = threading.Thread._set_ident  # type: ignore[attr-defined]

    def slow(thread: threading.Thread) -> None:
        set_ident(thread)
        if thread.name == "pymdc-worker":
            named.set()
            released.wait(PATIENCE)

    monkeypatch.setattr(threading.Thread, "_set_ident", slow)
    threads = WorkerThreads()
    starting = threading.Thread(target=lambda: threads.spawn(lambda: None))
    starting.start()
    assert named.wait(PATIENCE)
    threads.close(0.1)
    released.set()
    starting.join(PATIENCE)
