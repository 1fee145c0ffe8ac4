"""The classes of `pymdc.api` for asyncio: each method that makes a call is a coroutine.

::

    async with pymdc.aio.Client("http://127.0.0.1:6382") as client:
        bucket = pymdc.aio.Bucket(bucket_id, key_pair, client=client)
        await bucket.files.upload("photo.jpg")

The calls run on the workers of the client, as calls with a callback do, so at most ``workers`` of
them run at once. Parameters and answers are those of `pymdc.api`, without ``callback``.
An ``await`` raises what another call would return: an exception, or `BridgeError` for a refusal;
``asyncio.gather(..., return_exceptions=True)`` returns exceptions as values. Cancelling the task
cancels the call. ``progress`` is called on the worker; ``loop.call_soon_threadsafe`` reaches the
loop from there.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar, cast

import pymdc.client
from pymdc import api, rest
from pymdc._arguments import Text
from pymdc._http.auth import Identity
from pymdc.exceptions import unwrap

__all__ = ["REST", "Bucket", "Buckets", "Client", "Files", "Keys", "Users"]

_OF_CALLBACK = "With *callback*, return a `Call` at once."

Method = TypeVar("Method", bound=Callable[..., Any])
Resource = TypeVar("Resource")


class Client(pymdc.client.Client):
    """A client whose block may be ``async with``: its end waits for the calls, not the loop.

    If the task is cancelled in the block, the calls are cancelled too.
    """

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        await asyncio.to_thread(self.close, cancel=cancelled)


def _coroutine(method: Method) -> Method:
    """Return a coroutine function that calls *method* and awaits the value of the call."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        running = method(*args, **kwargs, callback=functools.partial(_deliver, future))
        del args, kwargs  # they may hold secrets, and a traceback refers to this frame
        try:
            return unwrap(await future)
        finally:
            running.cancel()  # unless it is done
            del future, running  # they refer to the exception, which refers to this frame

    signature = inspect.signature(method)
    others = [each for name, each in signature.parameters.items() if name != "callback"]
    shown: Any = call
    shown.__signature__ = signature.replace(parameters=others)
    shown.__doc__ = str(method.__doc__).replace(_OF_CALLBACK, "A coroutine.")
    shown.__module__ = __name__
    return cast(Method, call)


def _deliver(future: asyncio.Future[Any], value: Any) -> None:
    """Give *value* to *future*, from a worker."""
    with suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(_set_result, future, value)


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _awaitable(resource: type[Resource]) -> type[Resource]:
    """Replace each method of *resource* that takes a callback by a coroutine function."""
    for name, method in inspect.getmembers(resource, inspect.isfunction):
        if name[0] != "_" and "callback" in inspect.signature(method).parameters:
            setattr(resource, name, _coroutine(method))
    return resource


@_awaitable
class Users(api.Users):
    """`pymdc.api.Users` with coroutines."""


@_awaitable
class Keys(api.Keys):
    """`pymdc.api.Keys` with coroutines."""


@_awaitable
class Buckets(api.Buckets):
    """`pymdc.api.Buckets` with coroutines."""


@_awaitable
class Files(api.Files):
    """`pymdc.api.Files` with coroutines."""


@_awaitable
class Bucket(api.Bucket):
    """`pymdc.api.Bucket` with coroutines."""

    def __init__(
        self, bucket_id: Text, key_pair: Identity, *, client: pymdc.client.Client | None = None
    ) -> None:
        super().__init__(bucket_id, key_pair, client=client)
        self.files: Files = Files(bucket_id, key_pair, client=client)


REST = _coroutine(rest.REST)
