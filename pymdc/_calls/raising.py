"""Blocking calls that raise: the traceback shows the caller's frames and one frame of pymdc.

The frames of the methods of the API hold passwords and tokens, so none of them may be in the
traceback. A method returns a `Failure`, and its decorator `may_raise` raises the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class Failure:
    """What a blocking call returns to `may_raise`, which raises *error*."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def may_raise(method: Method) -> Method:
    """Make *method* raise the error if it returns a `Failure`."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        value = method(*args, **kwargs)
        if not isinstance(value, Failure):
            return value
        del args, kwargs  # they may hold secrets
        try:
            raise value.error
        finally:
            del value  # the traceback refers to this frame: the two would form a cycle

    return cast(Method, call)
