"""Tokens, each good for one arrival: one that a caller gives, or as many as it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pymdc._arguments import Text, text
from pymdc._calls.cancel_scope import Scope
from pymdc._calls.capture import without_frames
from pymdc._http.auth import Token
from pymdc._http.retry import Busy
from pymdc.exceptions import ConnectError, IntegrityError, NetworkError, refused

_TRIES = 3
_SPENT = {"error": "Invalid or expired token"}
_log = logging.getLogger("pymdc")


def given(token: Text | None) -> Token | None:
    """Return the *token* that a caller gives, if any."""
    return None if token is None else Token(_printable(token))


def spend(
    token: Token | None,
    fetch: Callable[[Scope], Any],
    use: Callable[[Token, Scope], Any],
    scope: Scope,
) -> Any:
    """Return what *use* makes of *token*, or else of one that the bridge's answer to *fetch* holds.

    A token is spent by arriving; for another try only one that was fetched here is replaced.
    """
    if token is None:
        return _spend_fetched(fetch, use, scope)
    try:
        return use(token, scope)
    except Busy as busy:
        return busy.response.decode()
    except ConnectError:
        raise
    except NetworkError as error:
        told = f"{error}; it was not sent again, because its token may be spent"
        raise type(error)(told) from error


def _spend_fetched(
    fetch: Callable[[Scope], Any], use: Callable[[Token, Scope], Any], scope: Scope
) -> Any:
    for tries_left in reversed(range(_TRIES)):
        answer = fetch(scope)
        if refused(answer):
            return answer
        token = _granted(answer, scope.doing)
        try:
            result = use(token, scope)
        except Busy as busy:
            if not tries_left or busy.wait > scope.left():
                return busy.response.decode()
            told = f"{scope.doing} answered {busy.response.status}"
            _log.warning("%s; trying it with a new token in %.3g s", told, busy.wait)
            scope.sleep(busy.wait)
        except NetworkError as error:
            scope.check()
            if not tries_left or isinstance(error, ConnectError):
                raise
            _log.warning("%s; trying it with a new token", without_frames(error))
        else:
            if not tries_left or result != _SPENT:
                return result
    raise AssertionError("the last try returns or raises")


def _granted(answer: Any, tried: str) -> Token:
    """Return the token in *answer*, which *tried* got; `IntegrityError` when it holds none."""
    try:
        return Token(_printable(answer["token"]))
    except (TypeError, ValueError, LookupError):
        raise IntegrityError(
            f"{tried}: the answer holds no token; is something else listening at the endpoint?"
        ) from None


def _printable(token: object) -> str:
    token = text(token, "the token")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that no token has; expected 64 hex digits")
    return token
