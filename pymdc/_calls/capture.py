"""Makes an exception the value of a call: inner code raises, and the caller gets the value."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

Job = Callable[[], Any]
Error = TypeVar("Error", bound=BaseException)

_log = logging.getLogger("pymdc")


class UserCodeError(Exception):
    """The caller's own function or file raised the cause; the cause becomes the value."""


class _UserCode:
    # Without contextlib: up to Python 3.10 it puts an exception that passes through into a
    # reference cycle, which would keep the variables of the block alive.
    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserCodeError):
            raise UserCodeError from error


def user_code() -> _UserCode:
    """Replace an exception that the block raises by a `UserCodeError` with that cause."""
    return _UserCode()


def capture(job: Job) -> Any:
    """Return what *job* returns, or the exception that it raises, prepared by `as_value`."""
    try:
        return job()
    except BaseException as error:  # noqa: BLE001  # the exception is the value
        return as_value(error)


def as_value(error: BaseException) -> BaseException:
    """Return the caught *error* as the value of a call.

    Its traceback is removed, because the frames hold secrets and the bytes that were sent; the log
    says at DEBUG where it was raised. If the caller's own function raised it, the traceback is
    kept from that function on.
    """
    if not isinstance(error, UserCodeError):
        return without_frames(error)
    traceback.clear_frames(error.__traceback__)
    assert error.__cause__ is not None
    return _with_user_frames(error.__cause__)


def without_frames(error: Error) -> Error:
    """Return *error* without the frames of its traceback and of its causes' tracebacks.

    The frames are in reference cycles: what they hold would stay until the garbage collector runs.
    The log says at DEBUG where the error was raised.
    """
    with suppress(Exception):  # raised by a log handler
        _log_places(error)
    chain: list[BaseException] = [error]
    for link in chain:
        link.__traceback__ = None
        for cause in (link.__cause__, link.__context__):
            if cause is not None and all(cause is not other for other in chain):
                chain.append(cause)
        if link.__suppress_context__:
            link.__context__ = None  # it may repeat what was sent, and no traceback shows it
    return error


def _log_places(error: BaseException) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        places = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _log.debug("%s was raised in:\n%s", type(error).__name__, places)


def _with_user_frames(error: BaseException) -> BaseException:
    place = error.__traceback__
    while place is not None and _is_own(place.tb_frame):
        with suppress(RuntimeError):  # a frame that is still executing cannot be cleared
            place.tb_frame.clear()  # later frames refer to it
        place = place.tb_next
    return error.with_traceback(place)


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "pymdc"
