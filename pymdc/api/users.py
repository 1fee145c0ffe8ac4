"""A user's account."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hashlib import sha256

from pymdc._arguments import Callback, Text, check_callback, raw, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.raising import may_raise
from pymdc._http.auth import Auth, NoAuth, identify
from pymdc._http.request import NOTHING, build_request, resource
from pymdc.api._resource import Resource
from pymdc.client import Answer, Client
from pymdc.exceptions import refused


class Users(Resource):
    """The user with the e-mail address *username*; without a *password*, a random one is made.

    The password itself is never sent; its SHA-256 is.
    Attributes: ``username``, ``password`` (text).
    """

    def __init__(
        self, username: Text, password: Text | None = None, *, client: Client | None = None
    ) -> None:
        super().__init__(client)
        self.username = text(username, "the username")
        if password is None:
            password = secrets.token_urlsafe(32)
        self.password = text(password, "the password")

    def password_hash(self) -> str:
        """Return the SHA-256 of the password, as the 64 hexadecimal digits sent to the bridge."""
        return _hash(self.password)

    @may_raise
    def register(
        self, callback: Callback | None = None, *, invitation: Text | None = None
    ) -> Answer:
        """Create the account; the bridge mails a token for `activate`. Not authenticated.

        *invitation* is the code that some bridges ask for.
        With *callback*, return a `Call` at once.
        """
        params = {"email": text(self.username, "the username"), "password": self.password_hash()}
        if invitation is not None:
            params["invitation"] = text(invitation, "the invitation")
        return self._call(callback, None, "POST", "users", params=params)

    @may_raise
    def activate(self, token: Text, callback: Callback | None = None) -> Answer:
        """Activate the account with the *token* from the mail. Not authenticated.

        With *callback*, return a `Call` at once.
        """
        path = ("activations", text(token, "the activation token"))
        return self._call(callback, None, "GET", *path)

    @may_raise
    def change_password(self, password: Text, callback: Callback | None = None) -> Answer:
        """Change the password to *password*. Authenticated with the old one.

        When the bridge has changed it, ``password`` is the new one.
        With *callback*, return a `Call` at once.
        """
        return self._set_password(callback, identify(self), "PATCH", *self._path, new=password)

    @may_raise
    def forgot_password(self, callback: Callback | None = None) -> Answer:
        """Ask the bridge to mail a token for `reset_password`. Not authenticated.

        The answer is the same if there is no such account.
        With *callback*, return a `Call` at once.
        """
        return self._call(callback, None, "POST", *self._path, "reset")

    @may_raise
    def reset_password(
        self, token: Text, password: Text, callback: Callback | None = None
    ) -> Answer:
        """Set the password *password* with the *token* from the mail. Not authenticated.

        The keys of the account are removed. When the bridge has done it, ``password`` is the new
        one.
        With *callback*, return a `Call` at once.
        """
        params = {"token": text(token, "the token")}
        path = (*self._path, "reset")
        return self._set_password(callback, NoAuth(), "PUT", *path, new=password, params=params)

    @may_raise
    def delete(self, callback: Callback | None = None) -> Answer:
        """Delete the account with its keys, buckets and files; the value is ''.

        Authenticated with the password.
        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self, "DELETE", *self._path)

    @property
    def _path(self) -> tuple[str, ...]:
        return ("users", text(self.username, "the username"))

    def _set_password(
        self,
        callback: Callback | None,
        auth: Auth,
        method: str,
        *path: str,
        new: Text,
        params: Mapping[str, str] = NOTHING,
    ) -> Answer:
        password = text(new, "the password")
        request = build_request(method, resource(*path), {**params, "password": _hash(password)})
        client = self._client

        def send(scope: CancelScope) -> Answer:
            answer = client.send(request, auth, scope)
            if not refused(answer):
                self.password = password
            return answer

        return client.run(send, check_callback(callback))

    def __repr__(self) -> str:
        return f"<Users {self.username!r}>"


def _hash(password: Text) -> str:
    return sha256(raw(password, "the password")).hexdigest()
