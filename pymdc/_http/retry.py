"""Whether a request is sent again: decided here, from what it was and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from pymdc._http.auth import Auth, Basic, Signature, Token
from pymdc._http.request import Request
from pymdc._http.response import Response
from pymdc.exceptions import CertificateError, ConnectError, HTTPError, NetworkError, refused

MOST_SENDINGS = 3
MOST_NONCES = 8
_BACKOFF = 0.1  # seconds before the second sending, doubled for each further one
_STALE_WAIT = 0.01  # seconds, as above, when a nonce was refused
_BUSY = (429, 503)
_STALE = b'"Invalid nonce supplied"'

Outcome = Response | NetworkError


class Busy(Exception):
    """The bridge wants what presented a token *wait* seconds later; that takes a new token."""

    def __init__(self, response: Response, wait: float) -> None:
        super().__init__(response, wait)
        self.response, self.wait = response, wait


@dataclass
class Sendings:
    """What was sent so far of one request, by one who *asks*."""

    request: Request
    asks: Auth
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.time
    count: int = 0
    stale: int = 0
    busy: int = 0
    uncertain: bool = False

    @property
    def repeatable(self) -> bool:
        """Say whether a second arrival does no harm: a signed or basic GET or DELETE."""
        known = isinstance(self.asks, Basic | Signature)
        return known and self.request.method in ("GET", "DELETE") and not self.spends

    @property
    def spends(self) -> bool:
        """Say whether arriving spends something: a token, or the one of an activation."""
        path = unquote(self.request.path).lower()
        return self.presents_token or "/activations/" in path

    @property
    def presents_token(self) -> bool:
        """Say whether a bucket's token is presented, by whatever way it came there."""
        names = [name.lower() for name in self.request.headers]
        return isinstance(self.asks, Token) or "x-token" in names

    def again(self, outcome: Outcome) -> float | None:
        """Note *outcome*; return the seconds to wait before another sending, or None for none.

        A bridge that is busy is asked for as long as the caller will wait.
        Raises `Busy` where another sending takes another token.
        """
        self.count += 1
        if isinstance(outcome, Response):
            return self._after_response(outcome)
        arrived = not isinstance(outcome, ConnectError)
        self.uncertain |= arrived
        failed = self.count - self.stale - self.busy
        if failed >= MOST_SENDINGS or isinstance(outcome, CertificateError):
            return None
        return self._backoff(failed) if self.repeatable or not arrived else None

    def done_before(self, response: Response) -> bool:
        """Say whether a DELETE found nothing because an earlier sending of it had arrived."""
        deleted = self.request.method == "DELETE" and self.uncertain
        return deleted and response.status == 404 and _by_the_bridge(response)

    def _after_response(self, response: Response) -> float | None:
        if response.status == 401 and isinstance(self.asks, Signature) and _STALE in response.body:
            self.stale += 1
            return self._stand_back() if self.stale <= MOST_NONCES else None
        waits = _retry_after(response.headers, self.clock) if response.status in _BUSY else None
        if waits is None:
            return None
        # A token is spent by arriving, whatever comes of it, and nobody knows how far it came.
        if isinstance(self.asks, Token):
            raise Busy(response, waits)
        if self.presents_token:
            return None
        self.busy += 1
        return max(waits, self._backoff(self.busy))

    def _stand_back(self) -> float:
        # At once the first time; then longer and longer, so that others get out of the way.
        return float(_STALE_WAIT * (2 ** (self.stale - 1) - 1) * (1 + self.jitter()))

    def _backoff(self, number: int) -> float:
        return float(_BACKOFF * 2 ** (number - 1) * (1 + self.jitter()))


def _by_the_bridge(refusal: Response) -> bool:
    try:
        return refused(refusal.decode())
    except HTTPError:
        return False


def _retry_after(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Return the seconds that a Retry-After header tells, as a number or as a date."""
    told = headers.get("Retry-After", "").strip()
    if told.isdecimal():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - clock())
    except (TypeError, ValueError, OverflowError):
        return None


def pauses(jitter: Callable[[], float] = random.random) -> Iterator[float | None]:
    """Give the seconds to wait after each try for a connection, and None after the last one."""
    for count in range(MOST_SENDINGS - 1):
        yield _BACKOFF * 2**count * (1 + jitter())
    yield None
