"""Who asks: nobody, a user with a password, a key pair, or the holder of a token."""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeGuard

from pymdc._arguments import Text, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.nonces import Nonces, nonces
from pymdc._crypto.signing import contract
from pymdc._http.request import Request
from pymdc.exceptions import IntegrityError, unwrap
from pymdc.keypair import ECDSA


class Auth(Protocol):
    """An identity, which makes a request its own."""

    def sign(self, request: Request) -> Request:
        """Return *request* with this identity; called anew for each sending."""


class NoAuth:
    """No identity at all."""

    def sign(self, request: Request) -> Request:
        """Return *request* as it is."""
        return request


@dataclass(repr=False, eq=False)
class Basic:
    """A user's name and the SHA-256 of the password, in hexadecimal."""

    username: str
    password_hash: str

    def sign(self, request: Request) -> Request:
        """Return *request* with HTTP Basic credentials."""
        credentials = base64.b64encode(f"{self.username}:{self.password_hash}".encode())
        return request.with_headers({"Authorization": "Basic " + credentials.decode("ascii")})


@dataclass(repr=False, eq=False)
class Signature:
    """A key pair, which signs the contract of a request with a new nonce in it."""

    key_pair: ECDSA
    nonces: Nonces = nonces

    def sign(self, request: Request) -> Request:
        """Return *request* with a nonce, the public key and the signature."""
        request = request.with_nonce(self.nonces.next())
        signed = contract(request.method, request.path, request.payload.encode())
        return request.with_headers(
            {"x-pubkey": self.key_pair.get_public_key(), "x-signature": self.key_pair.sign(signed)}
        )


@dataclass(repr=False, eq=False)
class Token:
    """A token of a bucket that the caller gave, good for one request."""

    token: str

    def sign(self, request: Request) -> Request:
        """Return *request* with the token."""
        return request.with_headers({"x-token": self.token})


@dataclass(repr=False, eq=False)
class FetchedToken:
    """A new token of a bucket for each sending, from the bridge's answer to *fetch*."""

    fetch: Callable[[CancelScope], Any]
    scope: CancelScope

    def sign(self, request: Request) -> Request:
        """Return *request* with a new token.

        Raises BridgeError if the bridge refuses one, and what *fetch* raises.
        """
        return Token(self._token_in(unwrap(self.fetch(self.scope)))).sign(request)

    def _token_in(self, answer: Any) -> str:
        try:
            return check_token(answer["token"])
        except (TypeError, ValueError, LookupError):
            raise IntegrityError(
                f"{self.scope.operation}: the answer holds no token;"
                " is something else listening at the endpoint?"
            ) from None


def check_token(token: Text) -> str:
    """Return *token* as text; ValueError if it cannot be a token."""
    token = text(token, "the token")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that no token has; expected 64 hex digits")
    return token


class HasPassword(Protocol):
    """A user: a `Users`, or what has the same two members."""

    @property
    def username(self) -> Text:
        """The e-mail address."""

    def password_hash(self) -> Text:
        """Return SHA-256 of the password, in hexadecimal."""


Identity: TypeAlias = HasPassword | ECDSA | None
_WHAT = "the user or key pair"


def _has_password(identity: object) -> TypeGuard[HasPassword]:
    # Not by isinstance(): since Python 3.12 that does not find what __getattr__ gives.
    named = hasattr(identity, "username")
    return named and callable(getattr(identity, "password_hash", None))


def check_identity(identity: object, what: str = _WHAT) -> Identity:
    """Return *identity* if it is a user, a key pair or None; TypeError names *what* is neither."""
    if identity is None or isinstance(identity, ECDSA) or _has_password(identity):
        return identity
    raise TypeError(f"{what} is {type(identity).__name__}; expected Users, ECDSA or None")


def identify(identity: object, what: str = _WHAT) -> Auth:
    """Return how *identity* makes a request its own; TypeError as `check_identity`."""
    known = check_identity(identity, what)
    if known is None:
        return NoAuth()
    if isinstance(known, ECDSA):
        return Signature(copy(known))  # whose keys may be assigned while the call waits
    digest = text(known.password_hash(), "the hash of the password")
    return Basic(text(known.username, "the username"), digest)
