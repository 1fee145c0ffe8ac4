"""The outcome of a call: here what is raised becomes a value."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

from pymdc._calls.user_code import Foreign

Work = Callable[[], Any]
Callback = Callable[[Any], object]
Error = TypeVar("Error", bound=BaseException)

_log = logging.getLogger("pymdc")


def outcome(work: Work) -> Any:
    """Return what *work* returns, or the exception that it raises: here an exception ends.

    The exception has no traceback, because its frames hold secrets and the bytes that were sent;
    the log says at DEBUG where it was raised. Of what the caller's own function raised, the frames
    from that function on are kept.
    """
    try:
        return work()
    except Foreign as error:
        traceback.clear_frames(error.__traceback__)
        return _with_foreign_frames(error.__cause__)
    except BaseException as error:  # noqa: BLE001  # whoever waits for a value gets this one
        return without_frames(error)


def without_frames(error: Error) -> Error:
    """Return *error* without the frames of its traceback and of its causes'.

    They are in cycles, so that what they hold lives on until the collector runs. The log says at
    DEBUG where it was raised.
    """
    with suppress(Exception):  # of a handler of the log
        _tell_places(error)
    chain: list[BaseException] = [error]
    for link in chain:
        link.__traceback__ = None
        for cause in (link.__cause__, link.__context__):
            if cause is not None and all(cause is not other for other in chain):
                chain.append(cause)
        if link.__suppress_context__:
            link.__context__ = None  # it may repeat what was sent, and is shown to nobody
    return error


def _tell_places(error: BaseException) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        places = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _log.debug("%s was raised in:\n%s", type(error).__name__, places)


def _with_foreign_frames(error: BaseException | None) -> BaseException | None:
    assert error is not None
    place = error.__traceback__
    while place is not None and _is_own(place.tb_frame):
        with suppress(RuntimeError):  # of a frame that is still executing
            place.tb_frame.clear()  # later frames lead back to it
        place = place.tb_next
    return error.with_traceback(place)


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "pymdc"


def checked(callback: object) -> Callback | None:
    """Return *callback* if it can be called, or None; TypeError when it is neither."""
    if callback is None or callable(callback):
        return callback
    raise TypeError(f"the callback is {type(callback).__name__}; expected a function")
