"""The queue under workers: every item once, and a timeout that holds."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from queue import Empty

import pytest
from modes import PATIENCE
from processes import python

from pymdc._internal.queue import Queue

OUTLASTED = """
import faulthandler, queue, signal, time
from pymdc._internal.queue import Queue

faulthandler.dump_traceback_later(30, exit=True)

def handle(number, frame):
    while time.monotonic() < last:
        pass

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
last = time.monotonic() + 0.4
try:
    Queue().get(timeout=0.3)
except queue.Empty:
    print("empty")
"""


def test_a_signal_handler_that_outlasts_the_timeout_does_not_remove_it() -> None:
    ended = python("-c", OUTLASTED)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("empty\n", "", 0)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, 1e-6, 1e-5])
def test_a_timeout_that_is_over_at_once_ends(timeout: float) -> None:
    for _ in range(5_000):
        with pytest.raises(Empty):
            Queue[None]().get(timeout)


def test_one_that_loses_its_item_to_another_waits_no_longer_than_it_said() -> None:
    queue, got = Queue[int](), list[object]()

    def take() -> None:
        try:
            got.append(queue.get(0.3))
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


def test_each_item_is_taken_once_in_its_order() -> None:
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


def test_an_item_that_an_interrupted_put_left_is_taken_at_the_end_of_the_timeout() -> None:
    class Interrupted(Queue[int]):
        def _tell(self) -> None:
            """Never come to it."""

    queue, waits, got = Interrupted(), threading.Event(), list[int]()

    def take() -> None:
        waits.set()
        got.append(queue.get(0.3))

    thread = threading.Thread(target=take)
    thread.start()
    assert waits.wait(PATIENCE)
    queue.put(1)
    thread.join(PATIENCE)
    assert got == [1]


def test_a_wait_without_a_timeout_looks_now_and_then() -> None:
    class Counted(Queue[int]):
        def __init__(self) -> None:
            super().__init__()
            self._told = self  # type: ignore[assignment]  # what is waited for

        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            if len(waits) == 3:
                self._items.append(1)
            return False

    waits = list[float]()
    assert Counted().get() == 1
    assert all(0 < timeout < 5 for timeout in waits)
