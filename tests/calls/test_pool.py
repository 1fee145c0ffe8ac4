"""Workers and calls: exactly once, in turn, and never in each other's way."""

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
from pymdc._calls.cancel_scope import Scope
from pymdc._calls.pool import WorkerPool
from pymdc._calls.threads import Threads
from pymdc._calls.waiting import Queue
from pymdc.exceptions import Cancelled


class Workers(WorkerPool):
    """Workers whose calls get a scope of their own, as a client's do."""

    def run(self, work: Any, scope: Scope | None = None) -> Any:
        return super().run(lambda scope: work(), scope or Scope())

    def submit(self, work: Any, callback: Any, scope: Scope | None = None) -> Call:
        return super().submit(lambda scope: work(), callback, scope or Scope())


@pytest.fixture(params=[1, 4], ids=["one worker", "four workers"])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    made = Workers(request.param)
    yield made
    made.close()


@pytest.fixture
def one() -> Iterator[Workers]:
    made = Workers(1)
    yield made
    made.close()


def ignore(value: object) -> None:
    """Take a value and do nothing."""


def fail() -> Any:
    raise LookupError("no")


def occupy(workers: Workers, count: int = 1) -> Callable[[], None]:
    """Keep *count* workers of the callback lane busy, and return what lets them go."""
    busy, free = threading.Barrier(count + 1), threading.Event()

    def wait() -> None:
        busy.wait(PATIENCE)
        free.wait(PATIENCE)

    for _ in range(count):
        workers.submit(wait, ignore)
    busy.wait(PATIENCE)
    return free.set


def test_a_blocking_call_returns_the_value_or_the_exception(workers: Workers) -> None:
    assert workers.run(lambda: {"id": 1}) == {"id": 1}
    assert isinstance(workers.run(fail), LookupError)


def test_a_blocking_call_runs_on_a_worker_too(workers: Workers) -> None:
    assert workers.run(threading.current_thread) is not threading.current_thread()


def test_a_callback_gets_the_value_or_the_exception_once(workers: Workers) -> None:
    for work, kind in ((dict, dict), (fail, LookupError)):
        got: list[object] = []
        call = workers.submit(work, got.append)
        call.join(PATIENCE)
        assert [type(value) for value in got] == [kind]
        assert call.result() is got[0]


def test_a_call_is_alive_until_its_callback_has_returned(workers: Workers) -> None:
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


def test_a_callback_that_raises_is_logged_and_harms_nothing(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(value: object) -> None:
        raise ZeroDivisionError("in the callback")

    with caplog.at_level(logging.ERROR, "pymdc"):
        call = workers.submit(lambda: "value", explode)
        assert call.result(PATIENCE) == "value"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "explode" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert workers.run(lambda: 1) == 1


def test_even_sys_exit_in_a_callback_ends_no_worker(
    one: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(value: object) -> None:
        raise SystemExit(3)

    assert one.submit(dict, leave).result(PATIENCE) == {}
    assert one.submit(dict, ignore).result(PATIENCE) == {}
    assert len(caplog.records) == 1


def test_what_waits_for_a_call_harms_no_worker_either(
    one: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = occupy(one)
    call = one.submit(dict, ignore)
    call.add_done_callback(lambda call: sys.exit(3))
    let_go()
    assert call.result(PATIENCE) == {}
    assert one.submit(dict, ignore).result(PATIENCE) == {}
    assert one.wait_idle(PATIENCE)
    assert "SystemExit" in caplog.text


def test_no_more_than_size_callback_calls_run_at_once() -> None:
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


def test_queued_calls_run_in_the_order_in_which_they_were_made(one: Workers) -> None:
    order: list[int] = []
    let_go = occupy(one)
    calls = [one.submit(partial(int, n), order.append) for n in range(50)]
    let_go()
    concurrent.futures.wait(calls, PATIENCE)
    assert order == list(range(50))


def test_a_blocking_call_passes_queued_callback_calls(one: Workers) -> None:
    let_go = occupy(one)
    queued = [one.submit(dict, ignore) for _ in range(1000)]
    assert one.run(lambda: "at once") == "at once"
    assert not any(call.done() for call in queued)
    let_go()


def test_blocking_calls_nest_inside_callbacks(one: Workers) -> None:
    depths: list[int] = []

    def callback(value: int) -> None:
        inner = one.run(lambda: one.run(lambda: one.run(lambda: value + 3)))
        depths.append(inner)

    assert one.submit(lambda: 1, callback).result(PATIENCE) == 1
    assert depths == [4]


def test_a_callback_may_wait_for_a_thread_that_makes_a_blocking_call(one: Workers) -> None:
    got: list[object] = []

    def callback(value: object) -> None:
        thread = threading.Thread(target=lambda: got.append(one.run(lambda: "inner")))
        thread.start()
        thread.join(PATIENCE)

    one.submit(dict, callback).join(PATIENCE)
    assert got == ["inner"]


def test_a_chain_of_callbacks_is_no_recursion(one: Workers) -> None:
    ended, depth = threading.Event(), 0

    def callback(value: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 3000:
            ended.set()
        else:
            one.submit(dict, callback)

    one.submit(dict, callback)
    assert ended.wait(PATIENCE)


def test_a_call_cancelled_in_the_queue_never_runs_and_its_callback_is_told(one: Workers) -> None:
    ran: list[int] = []
    got: list[object] = []
    let_go = occupy(one)
    call = one.submit(lambda: ran.append(1), got.append)
    assert call.cancel()
    call.join(PATIENCE)
    assert not call.cancel()
    let_go()
    assert ran == []
    assert [type(value) for value in got] == [Cancelled]
    assert call.result() is got[0]


def test_a_call_that_runs_is_cancelled_and_one_that_is_done_is_not(one: Workers) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        go_on.wait(PATIENCE)
        return "done"

    got: list[object] = []
    call = one.submit(work, got.append)
    began.wait(PATIENCE)
    assert call.cancel()
    go_on.set()
    assert isinstance(call.result(PATIENCE), Cancelled)
    assert not call.cancel()
    assert got == [call.result()]


def test_cancelled_calls_are_told_while_every_worker_is_busy(one: Workers) -> None:
    let_go = occupy(one)
    got: list[object] = []
    calls = [one.submit(dict, got.append) for _ in range(200)]
    for call in calls:
        assert call.cancel()
    concurrent.futures.wait(calls, PATIENCE)
    assert [type(value) for value in got] == [Cancelled] * 200
    let_go()


def test_a_callback_that_waits_for_its_own_call_is_told(one: Workers) -> None:
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

    made.append(one.submit(dict, callback))
    there.set()
    made[0].join(PATIENCE)
    assert [str(error) for error in caught] == ["a callback cannot wait for its own call"] * 3


@pytest.mark.parametrize("wait", [Call.join, Call.result, Call.exception])
def test_a_callback_waits_for_a_call_that_is_behind_it_in_the_queue(
    one: Workers, wait: Callable[[Call, float], object]
) -> None:
    done: list[bool] = []

    def callback(value: object) -> None:
        call = one.submit(dict, ignore)
        wait(call, PATIENCE)
        done.append(call.done())

    one.submit(dict, callback).join(PATIENCE)
    assert done == [True]


def test_a_cancelled_call_is_told_while_the_callback_of_another_one_blocks(one: Workers) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block(value: object) -> None:
        blocked.set()
        go_on.wait(PATIENCE)

    def wait_for_the_last(value: object) -> None:
        last.join(PATIENCE)
        told.append(last.done())

    told: list[bool] = []
    let_go = occupy(one)
    first, waiting, last = (
        one.submit(dict, callback) for callback in (block, wait_for_the_last, ignore)
    )
    assert first.cancel()
    assert blocked.wait(PATIENCE)
    assert last.cancel()
    let_go()
    waiting.join(PATIENCE)
    assert told == [True]
    assert first.is_alive()
    go_on.set()


def test_a_call_is_a_future(workers: Workers) -> None:
    calls = [workers.submit(partial(int, n), ignore) for n in range(5)]
    assert {call.result() for call in concurrent.futures.as_completed(calls, PATIENCE)} == {
        *range(5)
    }

    async def wait() -> object:
        return await asyncio.wrap_future(workers.submit(lambda: "awaited", ignore))

    assert asyncio.run(wait()) == "awaited"


def test_close_waits_for_callbacks_and_their_chains_and_leaves_no_thread() -> None:
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


def test_close_in_a_callback_does_not_wait_for_itself() -> None:
    workers = Workers(1)
    call = workers.submit(dict, lambda value: workers.close())
    assert call.result(PATIENCE) == {}
    workers.close()


class Doorstep(Queue[Any]):
    """Calls *meanwhile* when the second job is put; ``watched`` says that one is waited for."""

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


def test_a_job_that_comes_while_the_threads_are_closed_is_done() -> None:
    def close() -> None:
        closing.start()
        closing.join(0.1)  # it can't end, where the job comes first

    threads, rested, done = Threads(), threading.Event(), threading.Event()
    closing = threading.Thread(target=threads.close)
    threads._jobs = doorstep = Doorstep(close)
    threads.take(rested.set)
    assert doorstep.watched.wait(PATIENCE)
    threads.take(done.set)
    assert done.wait(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_threads_that_have_ended_are_kept_no_longer(workers: Workers) -> None:
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


def test_the_process_is_held_while_a_callback_has_to_run_and_no_longer(one: Workers) -> None:
    assert monitors() == []
    let_go = occupy(one)
    (holding,) = monitors()
    let_go()
    holding.join(PATIENCE)
    assert monitors() == []


class Pausing(logging.Handler):
    """Holds whoever logs something until it may ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.go_on = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.held.set()
        self.go_on.wait(PATIENCE)


def test_the_process_is_held_by_a_call_behind_a_worker_that_has_just_had_the_last_one(
    one: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(call: object) -> None:
        raise SystemExit

    pausing, end = Pausing(), threading.Event()
    monkeypatch.setattr(logging.getLogger("pymdc"), "handlers", [pausing])
    one.submit(partial(end.wait, PATIENCE), ignore).add_done_callback(leave)
    (holding,) = monitors()
    end.set()
    assert pausing.held.wait(PATIENCE)
    holding.join(PATIENCE)
    one.submit(dict, ignore)
    assert len(monitors()) == 1
    pausing.go_on.set()


def test_a_close_passes_over_a_thread_that_is_only_just_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named, released = threading.Event(), threading.Event()
    set_ident = threading.Thread._set_ident  # type: ignore[attr-defined]

    def slow(thread: threading.Thread) -> None:
        set_ident(thread)
        if thread.name == "pymdc-worker":
            named.set()
            released.wait(PATIENCE)

    monkeypatch.setattr(threading.Thread, "_set_ident", slow)
    threads = Threads()
    starting = threading.Thread(target=lambda: threads.take(lambda: None))
    starting.start()
    assert named.wait(PATIENCE)
    threads.close(0.1)
    released.set()
    starting.join(PATIENCE)
