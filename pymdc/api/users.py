"""A user's account."""

from __future__ import annotations

import secrets
from hashlib import sha256

from pymdc._arguments import Callback, Text, raw, text
from pymdc.api._resource import Resource
from pymdc.client import Answer, Client


class Users(Resource):
    """The user *username*, an e-mail address; the *password* is a random one when none is given.

    The password itself never leaves this machine: its SHA-256 does.
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
        """Return SHA-256 of the password, the 64 hexadecimal digits that the bridge is sent."""
        return sha256(raw(self.password, "the password")).hexdigest()

    def register(self, callback: Callback | None = None) -> Answer:
        """Make the account; the bridge mails a token that `activate` takes. Nobody signs.

        With *callback*, return a `Call` at once.
        """
        params = {"email": text(self.username, "the username"), "password": self.password_hash()}
        return self._call(callback, None, "POST", "users", params=params)

    def activate(self, token: Text, callback: Callback | None = None) -> Answer:
        """Activate the account with the *token* from the mail, once. Nobody signs.

        With *callback*, return a `Call` at once.
        """
        path = ("activations", text(token, "the activation token"))
        return self._call(callback, None, "GET", *path)

    def __repr__(self) -> str:
        return f"<Users {self.username!r}>"
