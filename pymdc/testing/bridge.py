"""The bridge of a test."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pymdc.bridge import Bridge
from pymdc.bridge.context import Context
from pymdc.bridge.serving.app import App
from pymdc.client import Client
from pymdc.testing.accounts import Account, make_account
from pymdc.testing.clock import Clock
from pymdc.testing.faults import Faults, FaultyApp
from pymdc.testing.requests import RecordedRequest

_GRACE = 1.0  # seconds; what a failed test has left in flight is of no use to anybody
_SETTINGS = ["quota", *inspect.signature(Bridge).parameters]
_SETTINGS.remove("data")
_SETTINGS.remove("clock")
_CHEAP = 2  # the lowest cost of a password


class TestBridge(Bridge):
    """A bridge that serves while its ``with`` block runs, and does what a test tells it.

    *quota* is how many GB each account may store. *settings* are those of `pymdc.bridge.Bridge`.
    By default the bridge listens on a free port of 127.0.0.1, stores everything in a temporary
    folder, and hashes passwords fast. Its time is ``clock``, and ``client`` is a `Client` of it.
    """

    __test__ = False  # pytest would take it for tests

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        quota: float | None = None,
        **settings: Any,
    ) -> None:
        if unknown := {*settings} - {*_SETTINGS}:
            expected = f"expected {', '.join(_SETTINGS)}"
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))}; {expected}")
        self.clock = Clock()
        self._faults = Faults()
        settings = {"grace": _GRACE, "password_cost": _CHEAP, "user_limit": quota} | settings
        super().__init__(data, clock=self.clock, **settings)

    def __enter__(self) -> TestBridge:
        super().__enter__()
        certificate = self._settings.tls_cert
        ca_certs = None if certificate is None else os.fspath(certificate)
        self.client = self._undo.enter_context(Client(self.endpoint, ca_certs=ca_certs))
        self._undo.callback(self._faults.end_delays)
        return self

    def __repr__(self) -> str:
        return f"<TestBridge {self.endpoint}>"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests since the start or the last `reset`, the oldest first.

        Those with which `account` and `Account.bucket` made something are left out.
        """
        return [*self._faults.requests]

    def fail(
        self,
        status: int,
        *,
        times: int | None = 1,
        route: str | None = None,
        body: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests with *status*, and do nothing of what they ask.

        *times* is the number of requests; None is every one until `reset`.
        *route* is a method and a path, as in ``PUT /buckets/{id}/files``, or "PULL /" for the
        channels; None is every one.
        *body* is the text to answer, such as a proxy's page of HTML or half of a JSON object;
        None is the JSON of an error.
        *retry_after* is in seconds; with it, pymdc sends the request again.
        """
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"status is {status!r}; expected 200 to 599")
        self._faults.add_failure(status, times, route, body, retry_after)

    def disconnect(self, *, times: int | None = 1, route: str | None = None) -> None:
        """Close the connection of the next requests without an answer; see `fail`."""
        self._faults.add_failure(None, times, route)

    def delay(self, seconds: float, *, times: int | None = None, route: str | None = None) -> None:
        """Let the next requests wait for *seconds* before they are looked at; see `fail`.

        Other requests go on meanwhile. `reset` ends the waits, and so does the end of the bridge.
        """
        self._faults.add_delay(seconds, times, route)

    def reset(self) -> None:
        """Forget failures, delays, requests and wrong passwords, and set the clock back.

        Accounts stay.
        """
        self._faults.reset()
        self.clock.reset()
        for throttle in self._throttles:
            throttle.forget_all()

    def account(self, client: Client | None = None) -> Account:
        """Register and activate a user with a key pair; by default, through ``client``."""
        for throttle in self._throttles:  # all accounts come from one address
            throttle.forget_all()
        return make_account(client or self.client, self.activation_key, self._unrecorded)

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        before, self._faults.suspended = self._faults.suspended, True
        try:
            yield
        finally:
            self._faults.suspended = before

    def _context(self, folder: Path, undo: ExitStack) -> Context:
        self.folder = folder
        context = super()._context(folder, undo)
        self._throttles = context.load.registrations, context.load.wrong_passwords
        return context

    def _application(self, *arguments: Any) -> App:
        return FaultyApp(self._faults, *arguments, self._settings.url)
