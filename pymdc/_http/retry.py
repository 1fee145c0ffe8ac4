"""What may be sent again, when, and how often: the one table of it, and the loop that obeys it.

=============================  =================================================  ============
what came                      is sent again                                      sendings
=============================  =================================================  ============
no connection                  always, unless the certificate is not trusted      3
the connection broke           a GET or DELETE with a password or a signature;    3
                               anything that presents a token fetched here
a nonce was refused            with another nonce: it was not executed            1 + 8
a token was refused            with another token, if it was fetched here         3
429 or 503 with Retry-After    after so long; with another token, if it was       no limit, or
                               fetched here; not with a token the caller gave     3 with a token
=============================  =================================================  ============

A token is spent by arriving, whatever comes of it; so is the token of an activation.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

from pymdc._calls.cancel_scope import Scope
from pymdc._calls.capture import without_frames
from pymdc._http.auth import Auth, Basic, FetchedToken, Signature, Token
from pymdc._http.request import Request
from pymdc._http.response import Response
from pymdc._http.transport import Transport
from pymdc.exceptions import (
    BridgeError,
    CertificateError,
    ConnectError,
    HTTPError,
    NetworkError,
    refused,
)

MAX_SENDINGS = 3
MAX_NONCE_REFUSALS = 8
_BACKOFF = 0.1  # seconds before the second sending, doubled for each further one
_NONCE_BACKOFF = 0.01  # seconds, as above, after a nonce was refused
_THROTTLING = (429, 503)
_NONCE_REFUSED = b'"Invalid nonce supplied"'
_TOKEN_REFUSED = b'"Invalid or expired token"'

_log = logging.getLogger("pymdc")

Outcome = Response | NetworkError


def send(transport: Transport, request: Request, auth: Auth, scope: Scope) -> Any:
    """Sign and send *request*, again where the table says so; return the answer or raise.

    A bridge that refuses a token to `FetchedToken` has given the answer.
    """
    state = RetryState(request, auth)
    while True:
        try:
            outcome = _send_once(transport, state, scope)
        except BridgeError as refusal:
            return refusal.answer
        scope.check()
        delay = state.next_delay(outcome)
        if delay is None or delay > scope.left():
            return state.result(outcome)
        _log.warning("%s; sending it again in %.3g s", _message(outcome, scope), delay)
        scope.sleep(delay)


def _send_once(transport: Transport, state: RetryState, scope: Scope) -> Outcome:
    signed = state.auth.sign(state.request)
    began = time.monotonic()
    outcome: Outcome
    try:
        outcome = transport.send(signed, scope)
    except NetworkError as error:
        outcome = without_frames(error)
    seconds = time.monotonic() - began
    number = state.sendings + 1
    _log.debug("%s, after %.3f s, sending %d", _message(outcome, scope), seconds, number)
    return outcome


def _message(outcome: Outcome, scope: Scope) -> str:
    if isinstance(outcome, NetworkError):
        return str(outcome)
    return f"{scope.doing} answered {outcome.status}"


@dataclass
class RetryState:
    """What became of the sendings of one *request* so far."""

    request: Request
    auth: Auth
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.time
    failures: int = 0
    nonce_refusals: int = 0
    throttled: int = 0
    may_have_arrived: bool = False

    @property
    def sendings(self) -> int:
        """The number of sendings so far."""
        return self.failures + self.nonce_refusals + self.throttled

    @property
    def repeatable(self) -> bool:
        """Whether a second arrival does no harm."""
        if isinstance(self.auth, FetchedToken):
            return True
        return (
            isinstance(self.auth, Basic | Signature)
            and self.request.method in ("GET", "DELETE")
            and not self._presents_token
            and "/activations/" not in unquote(self.request.path).lower()
        )

    @property
    def _presents_token(self) -> bool:
        """Whether a token that cannot be replaced is presented, by whatever way it came there."""
        names = [name.lower() for name in self.request.headers]
        return isinstance(self.auth, Token) or "x-token" in names

    def next_delay(self, outcome: Outcome) -> float | None:
        """Note *outcome*; return the seconds before another sending, or None for no other."""
        if isinstance(outcome, Response):
            return self._after_response(outcome)
        self.failures += 1
        arrived = not isinstance(outcome, ConnectError)
        self.may_have_arrived |= arrived
        if isinstance(outcome, CertificateError) or (arrived and not self.repeatable):
            return None
        return self._after_failure()

    def result(self, outcome: Outcome) -> Any:
        """Return the answer in *outcome*, the last one, or raise it."""
        if isinstance(outcome, Response):
            return "" if self._deleted_before(outcome) else outcome.decode()
        if isinstance(self.auth, Token) and not isinstance(outcome, ConnectError):
            message = f"{outcome}; it was not sent again, because its token may be spent"
            raise type(outcome)(message) from outcome
        raise outcome

    def _after_response(self, response: Response) -> float | None:
        refusal = response.body if response.status >= 400 else b""
        if isinstance(self.auth, Signature) and _NONCE_REFUSED in refusal:
            self.nonce_refusals += 1
            delay = _doubled(_NONCE_BACKOFF, self.nonce_refusals, self.jitter)
            return delay if self.nonce_refusals <= MAX_NONCE_REFUSALS else None
        if isinstance(self.auth, FetchedToken) and _TOKEN_REFUSED in refusal:
            self.failures += 1
            return self._after_failure()
        if response.status not in _THROTTLING or self._presents_token:
            return None
        seconds = _retry_after(response.headers, self.clock)
        if seconds is None:
            return None
        self.throttled += 1
        if isinstance(self.auth, FetchedToken) and self.sendings >= MAX_SENDINGS:
            return None
        return max(seconds, _doubled(_BACKOFF, self.throttled, self.jitter))

    def _after_failure(self) -> float | None:
        tried = self.sendings if isinstance(self.auth, FetchedToken) else self.failures
        return _doubled(_BACKOFF, self.failures, self.jitter) if tried < MAX_SENDINGS else None

    def _deleted_before(self, response: Response) -> bool:
        """Whether a DELETE found nothing because an earlier sending of it had arrived."""
        repeated = self.request.method == "DELETE" and self.may_have_arrived
        return repeated and response.status == 404 and _by_the_bridge(response)


def backoff_delays(jitter: Callable[[], float] = random.random) -> Iterator[float | None]:
    """Give the seconds to wait after each failed connection, and None after the last one."""
    for number in range(1, MAX_SENDINGS):
        yield _doubled(_BACKOFF, number, jitter)
    yield None


def _doubled(first: float, number: int, jitter: Callable[[], float]) -> float:
    return float(first * 2 ** (number - 1) * (1 + jitter()))


def _by_the_bridge(refusal: Response) -> bool:
    try:
        return refused(refusal.decode())
    except HTTPError:
        return False


def _retry_after(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Return the seconds in the header Retry-After, which holds a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock())
    except (TypeError, ValueError, OverflowError):
        return None
