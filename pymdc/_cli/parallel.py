"""Several calls of the API at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from pymdc import Call
from pymdc._cli.failures import Code
from pymdc.exceptions import Cancelled, unwrap

ENDS_ALL = (Code.SIGN_IN, Code.NETWORK)  # what happens to one file would happen to all

T = TypeVar("T")
# Starts a call for an item; the second argument is the callback.
Start = Callable[[T, Callable[[Any], object]], Call]


# An item and the answer for it, or else the error.
Done = tuple[T, Any, Exception | None]


def each(items: Iterable[T], start: Start[T], jobs: int) -> Generator[Done[T]]:
    """Start a call for each of *items*, at most *jobs* at a time; yield what became of each.

    What *start* raises is the error of its item. If the caller closes it early, the calls that
    have not ended are cancelled: else Python would wait for them at its end.
    """
    values: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    running: dict[int, tuple[T, Call]] = {}
    waiting = enumerate(items)
    try:
        while True:
            if len(running) < jobs and (following := next(waiting, None)) is not None:
                number, item = following
                try:
                    call = start(item, partial(_put, values, number))
                except Exception as error:  # noqa: BLE001  # it is told like one of the call
                    yield item, None, error
                else:
                    running[number] = item, call
            elif running:
                number, value = values.get()
                item, _ = running.pop(number)
                yield _done(item, value)
            else:
                return
    finally:
        cancel(call for _, call in running.values())


def _put(values: SimpleQueue[tuple[int, Any]], number: int, value: Any) -> None:
    values.put((number, value))


def cancel(calls: Iterable[Call]) -> None:
    """Cancel *calls*, and wait until they have ended: until then they may write files."""
    pending = [*calls]
    for call in pending:
        call.cancel()
    for call in pending:
        call.join()


def _done(item: T, value: Any) -> Done[T]:
    try:
        return item, unwrap(value), None
    except Cancelled:
        raise KeyboardInterrupt from None
    except Exception as error:  # noqa: BLE001  # whatever ended the call
        return item, None, error
