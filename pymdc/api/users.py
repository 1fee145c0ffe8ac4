"""A user's account."""

from __future__ import annotations

import secrets
from hashlib import sha256

from pymdc._arguments import Callback, Text, raw, text
from pymdc.api._resource import Resource
from pymdc.client import Answer, Client


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
        return sha256(raw(self.password, "the password")).hexdigest()

    def register(self, callback: Callback | None = None) -> Answer:
        """Create the account; the bridge mails a token for `activate`. Not authenticated.

        With *callback*, return a `Call` at once.
        """
        params = {"email": text(self.username, "the username"), "password": self.password_hash()}
        return self._call(callback, None, "POST", "users", params=params)

    def activate(self, token: Text, callback: Callback | None = None) -> Answer:
        """Activate the account with the *token* from the mail. Not authenticated.

        With *callback*, return a `Call` at once.
        """
        path = ("activations", text(token, "the activation token"))
        return self._call(callback, None, "GET", *path)

    def __repr__(self) -> str:
        return f"<Users {self.username!r}>"
