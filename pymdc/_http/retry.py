"""Retries: a table of what may be sent again and how often, and the loop that applies it.

A fetched token is one that pymdc fetched; each attempt has a new one.

============================  =========================================================  ========
outcome of an attempt         what is sent again                                         attempts
============================  =========================================================  ========
no connection                 every request, unless the certificate is not trusted       3
the connection broke          a GET or DELETE with a password or a signature; every      3
                              request with a fetched token
a nonce was refused           the request, which was not executed, with another nonce    1 + 8
a token was refused           a request with a fetched token                             3
429 or 503 with Retry-After   a request with a fetched token, after the time given       3
                              every other request, unless the caller gave its token      no limit
============================  =========================================================  ========

A token is spent when it arrives, whatever the response; so is the token of an activation. The
password of an account that was deleted is wrong.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import unquote

from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import without_frames
from pymdc._http.auth import Auth, Basic, FetchedToken, Signature, Token
from pymdc._http.request import Request
from pymdc._http.response import THROTTLING, Response
from pymdc._http.transport import Transport
from pymdc.exceptions import (
    BridgeError,
    CertificateError,
    ConnectError,
    HTTPError,
    NetworkError,
    refused,
)

MAX_ATTEMPTS = 3
MAX_NONCE_REFUSALS = 8
_BACKOFF = 0.1  # seconds before the second attempt, doubled for each further one
_MAX_THROTTLED_BACKOFF = 1.0  # seconds; the server itself says how long to wait
_NONCE_BACKOFF = 0.01  # seconds, likewise, after a refused nonce
_NONCE_REFUSED = b'"Invalid nonce supplied"'
_TOKEN_REFUSED = b'"Invalid or expired token"'

_log = logging.getLogger("pymdc")

Outcome = Response | NetworkError
Connected = TypeVar("Connected")


def send(transport: Transport, request: Request, auth: Auth, scope: CancelScope) -> Any:
    """Sign and send *request*, with retries; return the answer or raise.

    If the bridge refuses to give a `FetchedToken` its token, the refusal is the answer.
    """
    state = RetryState(request, auth)
    while True:
        try:
            outcome = _send_once(transport, state, scope)
        except BridgeError as refusal:
            return refusal.answer
        scope.check()
        delay = state.next_delay(outcome)
        if delay is None or delay > scope.remaining():
            return state.result(outcome)
        _log.warning("%s; retrying in %.3g s", _message(outcome, scope), delay)
        scope.sleep(delay)


def _send_once(transport: Transport, state: RetryState, scope: CancelScope) -> Outcome:
    signed = state.auth.sign(state.request)
    start = time.monotonic()
    outcome: Outcome
    try:
        outcome = transport.send(signed, scope)
    except NetworkError as error:
        outcome = without_frames(error)
    seconds = time.monotonic() - start
    number = state.attempts + 1
    _log.debug("%s, after %.3f s, attempt %d", _message(outcome, scope), seconds, number)
    return outcome


def _message(outcome: Outcome, scope: CancelScope) -> str:
    if isinstance(outcome, NetworkError):
        return str(outcome)
    return f"{scope.operation} answered {outcome.status}"


@dataclass
class RetryState:
    """The outcomes of the attempts at one *request* so far, counted."""

    request: Request
    auth: Auth
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.time
    failures: int = 0
    nonce_refusals: int = 0
    throttled: int = 0
    may_have_arrived: bool = False

    @property
    def attempts(self) -> int:
        """The number of attempts so far."""
        return self.failures + self.nonce_refusals + self.throttled

    @property
    def repeatable(self) -> bool:
        """Whether the request may arrive twice without harm."""
        if isinstance(self.auth, FetchedToken):
            return True
        path = unquote(self.request.path).lower()
        return (
            isinstance(self.auth, Basic | Signature)
            and self.request.method in ("GET", "DELETE")
            and not self._has_given_token
            and "/activations/" not in path
            and not path.startswith("/users/")
        )

    @property
    def _has_given_token(self) -> bool:
        """Whether the request has a token from the caller, which cannot be replaced."""
        names = [name.lower() for name in self.request.headers]
        return isinstance(self.auth, Token) or "x-token" in names

    def next_delay(self, outcome: Outcome) -> float | None:
        """Count *outcome*; return the seconds before the next attempt, or None for none."""
        if isinstance(outcome, Response):
            return self._after_response(outcome)
        self.failures += 1
        arrived = not isinstance(outcome, ConnectError)
        self.may_have_arrived |= arrived
        if isinstance(outcome, CertificateError) or (arrived and not self.repeatable):
            return None
        return self._after_failure()

    def result(self, outcome: Outcome) -> Any:
        """Return the answer in the last *outcome*, or raise it."""
        if isinstance(outcome, Response):
            return "" if self._already_deleted(outcome) else outcome.decode()
        if isinstance(self.auth, Token) and not isinstance(outcome, ConnectError):
            message = f"{outcome}; the request was not sent again, because its token may be spent"
            raise type(outcome)(message) from outcome
        raise outcome

    def _after_response(self, response: Response) -> float | None:
        refusal = response.body if response.status >= 400 else b""
        if isinstance(self.auth, Signature) and _NONCE_REFUSED in refusal:
            self.nonce_refusals += 1
            delay = _backoff(_NONCE_BACKOFF, self.nonce_refusals, self.jitter)
            return delay if self.nonce_refusals <= MAX_NONCE_REFUSALS else None
        if isinstance(self.auth, FetchedToken) and _TOKEN_REFUSED in refusal:
            self.failures += 1
            return self._after_failure()
        if response.status not in THROTTLING or self._has_given_token:
            return None
        seconds = _retry_after(response.headers, self.clock)
        if seconds is None:
            return None
        self.throttled += 1
        if isinstance(self.auth, FetchedToken) and self.attempts >= MAX_ATTEMPTS:
            return None
        backoff = _backoff(_BACKOFF, self.throttled, self.jitter)
        return max(seconds, min(backoff, _MAX_THROTTLED_BACKOFF))

    def _after_failure(self) -> float | None:
        attempts = self.attempts if isinstance(self.auth, FetchedToken) else self.failures
        if attempts >= MAX_ATTEMPTS:
            return None
        return _backoff(_BACKOFF, self.failures, self.jitter)

    def _already_deleted(self, response: Response) -> bool:
        """Whether a DELETE got 404 because an earlier attempt may have deleted the resource."""
        repeated = self.request.method == "DELETE" and self.may_have_arrived
        return repeated and response.status == 404 and _is_from_bridge(response)


def connect(opener: Callable[[], Connected], scope: CancelScope) -> Connected:
    """Call *opener*, which connects, with retries as the table says; return what it returns."""
    failures = 0
    while True:
        try:
            return opener()
        except ConnectError as error:
            scope.check()
            failures += 1
            if failures == MAX_ATTEMPTS or isinstance(error, CertificateError):
                raise
            delay = _backoff(_BACKOFF, failures, random.random)
            _log.warning("%s; retrying in %.3g s", without_frames(error), delay)
        scope.sleep(delay)


def _backoff(first: float, number: int, jitter: Callable[[], float]) -> float:
    return float(first * 2 ** (number - 1) * (1 + jitter()))


def _is_from_bridge(refusal: Response) -> bool:
    try:
        return refused(refusal.decode())
    except HTTPError:
        return False


def _retry_after(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Return the seconds of the header Retry-After, which is a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock())
    except (TypeError, ValueError, OverflowError):
        return None
