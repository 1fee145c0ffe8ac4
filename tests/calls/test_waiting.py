"""Queue and Changes: each item is taken once, each waiter is woken, and timeouts hold."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from functools import partial
from queue import Empty

import pytest
from modes import PATIENCE
from processes import python

from pymdc._calls import waiting as queues
from pymdc._calls.waiting import Changes, Queue

HANDLER_OUTLASTS_TIMEOUT = """
import faulthandler, queue, signal, time
from pymdc._calls.waiting import Queue

faulthandler.dump_traceback_later(30, exit=True)

def handle(number, frame):
    while time.monotonic() < last:
        pass

signal.signal(signal.SIGALRM, handle)
last = time.monotonic() + 0.4
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    Queue().get(timeout=0.3)
except queue.Empty:
    print("empty")
"""


def test_timeout_holds_after_longer_signal_handler() -> None:
    ended = python("-c", HANDLER_OUTLASTS_TIMEOUT)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("empty\n", "", 0)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, 1e-6, 1e-5])
def test_tiny_timeout_ends_at_once(timeout: float) -> None:
    for _ in range(5_000):
        with pytest.raises(Empty):
            Queue[None]().get(timeout)


@pytest.fixture
def _no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable polling, so that only a wake-up ends a wait."""
    monkeypatch.setattr(queues, "_POLL_INTERVAL", 1e6)


@pytest.mark.usefixtures("_no_polling")
def test_waiter_that_loses_its_item_waits_no_longer_than_its_timeout() -> None:
    queue, got = Queue[int](), list[object]()

    def take() -> None:
        try:
            got.append(queue.get(3.0))
        except Empty:
            got.append(None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    queue.put(1)
    queue.put(2)
    for thread in threads:
        thread.join(PATIENCE)
    assert Counter(got) == {1: 1, 2: 1, None: 6}


@pytest.mark.usefixtures("_no_polling")
def test_items_are_taken_once_in_order() -> None:
    queue, got = Queue[int](), [list[int]() for _ in range(4)]

    def take(taken: list[int]) -> None:
        while (item := queue.get()) >= 0:
            taken.append(item)

    threads = [threading.Thread(target=take, args=[taken]) for taken in got]
    for thread in threads:
        thread.start()
    for number in range(10_000):
        queue.put(number)
    for _ in threads:
        queue.put(-1)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(itertools.chain(*got)) == list(range(10_000))
    assert all(taken == sorted(taken) for taken in got)
    assert len(queue) == 0


@pytest.mark.usefixtures("_no_polling")
def test_waiter_is_woken_by_each_item() -> None:
    questions, answers = Queue[int](), Queue[int]()

    def answer() -> None:
        while (question := questions.get()) >= 0:
            answers.put(question)

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(1_000):
        questions.put(number)
        assert answers.get(PATIENCE) == number
    questions.put(-1)
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.usefixtures("_no_polling")
def test_waiters_are_woken_by_each_change() -> None:
    changes, most = Changes(), 300
    numbers = [0] * 4

    def follow(index: int) -> None:
        for number in range(1, most):
            if changes.wait_for(partial(all_have_reached, number - 1), PATIENCE):
                numbers[index] = number
                changes.notify()

    def all_have_reached(number: int) -> bool:
        return min(numbers) >= number

    threads = [threading.Thread(target=follow, args=[index]) for index in range(len(numbers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert numbers == [most - 1] * len(numbers)
    assert not changes.wait_for(lambda: False, 0)


def test_exception_during_wait_has_no_context_of_queue() -> None:
    class Interrupted(Queue[int]):
        def __init__(self) -> None:
            super().__init__()
            self._signal = self  # type: ignore[assignment]  # whose acquire() waits

        def acquire(self, timeout: float) -> bool:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        Interrupted().get()
    assert caught.value.__context__ is None
    with pytest.raises(Empty) as empty:
        Queue[int]().get(0)
    assert empty.value.__context__ is None


def test_item_of_interrupted_put_is_taken_when_timeout_ends() -> None:
    class Interrupted(Queue[int]):
        def _notify(self) -> None:
            """Do nothing, as if interrupted before the waiter is woken."""

    queue, waits, got = Interrupted(), threading.Event(), list[int]()

    def take() -> None:
        waits.set()
        got.append(queue.get(3.0))

    thread = threading.Thread(target=take)
    thread.start()
    assert waits.wait(PATIENCE)
    queue.put(1)
    thread.join(PATIENCE)
    assert got == [1]


def test_wait_without_timeout_polls() -> None:
    class Counted(Queue[int]):
        def __init__(self) -> None:
            super().__init__()
            self._signal = self  # type: ignore[assignment]  # whose acquire() waits

        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            if len(waits) == 3:
                self._items.append(1)
            return False

    waits = list[float]()
    assert Counted().get() == 1
    assert all(0 < timeout < 5 for timeout in waits)
