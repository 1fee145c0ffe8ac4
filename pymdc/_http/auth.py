"""How a request is authenticated: not at all, with a password, a key pair or a token."""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard

from pymdc._arguments import Text, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.nonces import Nonces, nonces
from pymdc._crypto.signing import contract
from pymdc._http.request import Request
from pymdc.exceptions import IntegrityError, unwrap
from pymdc.keypair import ECDSA


class Auth(Protocol):
    """Adds credentials to a request."""

    def sign(self, request: Request) -> Request:
        """Return *request* with the credentials; called for each attempt."""


class NoAuth:
    """No authentication."""

    def sign(self, request: Request) -> Request:
        """Return *request* unchanged."""
        return request


@dataclass(repr=False, eq=False)
class Basic:
    """HTTP Basic: a username and the SHA-256 of the password, in hexadecimal."""

    username: str
    password_hash: str

    def sign(self, request: Request) -> Request:
        """Return *request* with the header Authorization."""
        credentials = base64.b64encode(f"{self.username}:{self.password_hash}".encode())
        return request.with_headers({"Authorization": "Basic " + credentials.decode("ascii")})


@dataclass(repr=False, eq=False)
class Signature:
    """A key pair that signs the contract of each request, which contains a new nonce."""

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
class PasswordAndSignature(Signature):
    """The password of a user, and the signature of a key pair that the user registers.

    The bridge of 2016 checks the password alone.
    """

    basic: Basic = field(kw_only=True)

    def sign(self, request: Request) -> Request:
        """Return *request* with the credentials of both."""
        return self.basic.sign(super().sign(request))


@dataclass(repr=False, eq=False)
class Token:
    """A bucket token that the caller gave, valid for one request."""

    token: str

    def sign(self, request: Request) -> Request:
        """Return *request* with the token."""
        return request.with_headers({"x-token": self.token})


@dataclass(repr=False, eq=False)
class FetchedToken:
    """A new bucket token for each attempt, from the answer that *fetch* gets."""

    fetch: Callable[[CancelScope], Any]
    scope: CancelScope

    def sign(self, request: Request) -> Request:
        """Return *request* with a new token.

        Raises BridgeError if the bridge refuses a token, and whatever *fetch* raises.
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
        raise ValueError("the token is not printable ASCII; expected 64 hex digits")
    return token


class HasPassword(Protocol):
    """A `Users`, or another object with the same two attributes."""

    @property
    def username(self) -> Text:
        """The e-mail address."""

    def password_hash(self) -> Text:
        """Return SHA-256 of the password, in hexadecimal."""


Identity: TypeAlias = HasPassword | ECDSA | None
_DESCRIPTION = "the user or key pair"


def _has_password(identity: object) -> TypeGuard[HasPassword]:
    # Without isinstance(), which since Python 3.12 ignores attributes from __getattr__.
    has_name = hasattr(identity, "username")
    return has_name and callable(getattr(identity, "password_hash", None))


def check_identity(identity: object, what: str = _DESCRIPTION) -> Identity:
    """Return *identity* if it is a user, a key pair or None; else raise TypeError about *what*."""
    if identity is None or isinstance(identity, ECDSA) or _has_password(identity):
        return identity
    raise TypeError(f"{what} is {type(identity).__name__}; expected Users, ECDSA or None")


def identify(identity: object, what: str = _DESCRIPTION) -> Auth:
    """Return the `Auth` for *identity*; raise TypeError as `check_identity` does."""
    checked = check_identity(identity, what)
    if checked is None:
        return NoAuth()
    if isinstance(checked, ECDSA):
        return Signature(copy(checked))  # the caller may assign other keys while the call is queued
    password_hash = text(checked.password_hash(), "the hash of the password")
    return Basic(text(checked.username, "the username"), password_hash)
