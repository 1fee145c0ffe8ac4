"""A user's public keys."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from copy import copy

from pymdc._arguments import Callback
from pymdc._calls.raising import may_raise
from pymdc._http.auth import Basic, Identity, PasswordAndSignature, check_identity, identify
from pymdc.api._resource import Resource
from pymdc.api.users import Users
from pymdc.client import Answer, Client
from pymdc.keypair import ECDSA


class Keys(Resource):
    """The public keys of *user*, which is a `Users` or a key pair that is already registered.

    Attributes: ``user``; ``key_pairs``, the key pairs registered by this object and not deleted.
    """

    def __init__(self, user: Identity, *, client: Client | None = None) -> None:
        super().__init__(client)
        self.user = check_identity(user)
        self.key_pairs: list[ECDSA] = []

    @property
    def _client(self) -> Client:
        client_of_user = self.user._given_client if isinstance(self.user, Users) else None
        return self._given_client or client_of_user or super()._client

    @may_raise
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the registered keys: ``[{user, key, id}]``. Authenticated as the user.

        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.user, "GET", "keys")

    @may_raise
    def create(self, key_pair: ECDSA | None = None, callback: Callback | None = None) -> Answer:
        """Register the public key of *key_pair* or of a new key pair. Authenticated as the user.

        If the user authenticates with a password, the key pair signs the request as well, if it
        has its private key: a key that is proven so belongs to this user alone.
        The key pair is added to ``key_pairs`` at once, whatever the answer is.
        With *callback*, return a `Call` at once.
        """
        pair = ECDSA() if key_pair is None else check_key_pair(key_pair)
        auth, params = identify(self.user), {"key": pair.get_public_key()}
        if isinstance(auth, Basic) and pair.private_key is not None:
            params["user"] = auth.username  # so that it is no proof for another user
            auth = PasswordAndSignature(copy(pair), basic=auth)
        call = self._prepare(callback, auth, "POST", "keys", params=params)
        if pair not in self.key_pairs:
            self.key_pairs.append(pair)
        return call()

    @may_raise
    def delete(self, key_pair: ECDSA, callback: Callback | None = None) -> Answer:
        """Delete the public key of *key_pair*; the value is ''. Authenticated as the user.

        The key pair is removed from ``key_pairs`` at once, whatever the answer is.
        With *callback*, return a `Call` at once.
        """
        key = check_key_pair(key_pair).get_public_key()
        call = self._prepare(callback, identify(self.user), "DELETE", "keys", key)
        with suppress(ValueError):  # it is not in the list
            self.key_pairs.remove(key_pair)
        return call()

    def __repr__(self) -> str:
        return f"<Keys of {self.user}>"


def check_key_pair(key_pair: object) -> ECDSA:
    """Return *key_pair* if it is an `ECDSA`; TypeError if it is not."""
    if not isinstance(key_pair, ECDSA):
        raise TypeError(f"the key pair is {type(key_pair).__name__}; expected ECDSA")
    return key_pair


def public_keys(key_pairs: Iterable[ECDSA]) -> list[str]:
    """Return the public keys of *key_pairs*, in hexadecimal; TypeError if one is not an `ECDSA`."""
    if not isinstance(key_pairs, Iterable):
        raise TypeError(f"key_pairs is {type(key_pairs).__name__}; expected a list of ECDSA")
    return [check_key_pair(key_pair).get_public_key() for key_pair in key_pairs]
