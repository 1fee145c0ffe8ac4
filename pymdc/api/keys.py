"""A user's public keys."""

from __future__ import annotations

from typing import Any, overload

from pymdc._auth import Basic
from pymdc._call import Call, Callback
from pymdc._request import resource, settle
from pymdc._scope import Scope
from pymdc.api._resource import Resource
from pymdc.api.users import Users
from pymdc.client import Answer, Client
from pymdc.keypair import ECDSA


class Keys(Resource):
    """The public keys registered for *user*; ``key_pairs`` are those that were created here."""

    def __init__(self, user: Users, *, client: Client | None = None) -> None:
        if not isinstance(user, Users):
            raise TypeError(f"the user is {type(user).__name__}; expected Users")
        super().__init__(user._given if client is None else client)
        self.user = user
        self.key_pairs: list[ECDSA] = []

    @property
    def _auth(self) -> Basic:
        return Basic(self.user.username, self.user.password_hash())

    @overload
    def list(self, callback: None = None) -> Answer: ...
    @overload
    def list(self, callback: Callback) -> Call: ...
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the registered keys: ``[{user, key, id}]``. The password signs in."""
        return self._call(callback, self._auth, "GET", "keys")

    @overload
    def create(self, key_pair: ECDSA | None = None, callback: None = None) -> Answer: ...
    @overload
    def create(self, key_pair: ECDSA | None, callback: Callback) -> Call: ...
    @overload
    def create(self, key_pair: ECDSA | None = None, *, callback: Callback) -> Call: ...
    def create(self, key_pair: ECDSA | None = None, callback: Callback | None = None) -> Answer:
        """Register the public key of *key_pair*, or of a new one. The password signs in.

        Once the bridge has it, the key pair stands in ``key_pairs``.
        """
        if key_pair is None:
            key_pair = ECDSA()
        pair, auth, client = checked(key_pair), self._auth, self._client
        key = pair.get_public_key()
        request = settle("POST", resource("keys"), {"key": key})

        def create(scope: Scope) -> Any:
            answer = client.send(request, auth, scope)
            if isinstance(answer, dict) and answer.get("key") == key:
                self.key_pairs.append(pair)
            return answer

        return client.run(create, callback)

    @overload
    def delete(self, key_pair: ECDSA, callback: None = None) -> Answer: ...
    @overload
    def delete(self, key_pair: ECDSA, callback: Callback) -> Call: ...
    def delete(self, key_pair: ECDSA, callback: Callback | None = None) -> Answer:
        """Remove the public key of *key_pair*; the value is ''. The password signs in."""
        path = ("keys", checked(key_pair).get_public_key())
        return self._call(callback, self._auth, "DELETE", *path)


def checked(key_pair: object) -> ECDSA:
    """Return *key_pair* if it is one; TypeError when it is not."""
    if not isinstance(key_pair, ECDSA):
        raise TypeError(f"the key pair is {type(key_pair).__name__}; expected ECDSA")
    return key_pair
