"""Who asks: nobody, a password, a key pair, or the holder of a token."""

from __future__ import annotations

import base64
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeGuard

from pymdc._arguments import Text, text
from pymdc._crypto.nonces import Nonces, nonces
from pymdc._crypto.signing import contract
from pymdc._http.request import Request
from pymdc.keypair import ECDSA


def _lead(refused: int) -> int:
    """Return the milliseconds by which a nonce runs ahead, once others were *refused*.

    A bridge that wants nonces in order may have seen one of a process whose clock is ahead. At the
    first refusal a later time is tried alone, since a lead would refuse all other processes theirs.
    """
    return 7 ** (refused - 2) if refused > 1 else 0


class Auth(Protocol):
    """An identity, which makes a request its own."""

    def sign(self, request: Request, refused: int = 0) -> Request:
        """Return *request* with this identity; called anew for each sending.

        *refused* says how many times its nonce was refused before.
        """


@dataclass(frozen=True)
class Nobody:
    """No identity at all."""

    def sign(self, request: Request, refused: int = 0) -> Request:
        """Return *request* as it is."""
        return request


@dataclass(frozen=True)
class Basic:
    """A user's name and the SHA-256 of the password, in hexadecimal."""

    username: str
    password_hash: str = field(repr=False)

    def sign(self, request: Request, refused: int = 0) -> Request:
        """Return *request* with HTTP Basic credentials."""
        credentials = base64.b64encode(f"{self.username}:{self.password_hash}".encode())
        return request.with_headers({"Authorization": "Basic " + credentials.decode("ascii")})


@dataclass(frozen=True)
class Signature:
    """A key pair, which signs the contract of a request with a new nonce in it."""

    key_pair: ECDSA
    nonces: Nonces = field(default=nonces, repr=False)

    def sign(self, request: Request, refused: int = 0) -> Request:
        """Return *request* with a nonce, the public key and the signature."""
        request = request.with_nonce(self.nonces.next(_lead(refused)))
        signed = contract(request.method, request.path, request.payload.encode())
        return request.with_headers(
            {"x-pubkey": self.key_pair.get_public_key(), "x-signature": self.key_pair.sign(signed)}
        )


@dataclass(frozen=True)
class Token:
    """A token of a bucket, good for one request."""

    token: str = field(repr=False)

    def sign(self, request: Request, refused: int = 0) -> Request:
        """Return *request* with the token, which this spends."""
        return request.with_headers({"x-token": self.token})


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


def checked(identity: object, what: str = _WHAT) -> Identity:
    """Return *identity* if it is a user, a key pair or None; TypeError names *what* is neither."""
    if identity is None or isinstance(identity, ECDSA) or _has_password(identity):
        return identity
    raise TypeError(f"{what} is {type(identity).__name__}; expected Users, ECDSA or None")


def identify(identity: object, what: str = _WHAT) -> Auth:
    """Return how *identity* makes a request its own; TypeError as `checked`."""
    known = checked(identity, what)
    if known is None:
        return Nobody()
    if isinstance(known, ECDSA):
        return Signature(copy(known))  # whose keys may be assigned while the call waits
    digest = text(known.password_hash(), "the hash of the password")
    return Basic(text(known.username, "the username"), digest)
