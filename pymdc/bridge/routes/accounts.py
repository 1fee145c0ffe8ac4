"""Accounts: another password, and the end of an account.

Who sets a password by mail has the account for himself: a stranger may have registered the address
and may know the old password, so its keys and tokens are gone then.
"""

from __future__ import annotations

import secrets
from functools import partial
from hashlib import sha256

import sqlalchemy as sa

from pymdc.bridge.auth import Identity, wrong_password
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.mail import NEW_PASSWORD
from pymdc.bridge.routes.users import address, may_mail, new_password, user_json
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import RESET_LIFETIME
from pymdc.bridge.storage.accounts import (
    ACTIVE,
    mark_account_removed,
    remove_all_keys,
    set_password,
)
from pymdc.bridge.storage.removal import remove_account_piece
from pymdc.bridge.storage.tables import lock_user, redeem_token, resets, users


def change(context: Context, request: Request, identity: Identity) -> Response:
    """Change the password of an account; its old one authenticates the request."""
    hashed, unchanged = context.passwords.hash(new_password(request)), _unchanged(identity)
    with context.database.write() as connection:
        row = set_password(connection, identity.email, hashed, unchanged)
    if row is None:
        raise wrong_password()
    return Response(user_json(row["email"], row["created"], activated=True))


def remove(context: Context, _request: Request, identity: Identity) -> Response:
    """Remove an account, with its keys, its buckets and their files."""
    email, unchanged = identity.email, _unchanged(identity)
    with context.database.write() as connection:
        if not mark_account_removed(connection, email, context.now(), ACTIVE, unchanged):
            raise wrong_password()
    piece = partial(remove_account_piece, context.database, context.objects, email)
    return Response(status=204, piece=partial(context.load.run, piece, share=1))


def request_reset(context: Context, request: Request, _identity: Identity) -> Response:
    """Mail a token for a new password; the answer is the same if there is no such account."""
    email = address(request.path_parameters["email"])
    mail_token = partial(_mail_token, context, email, context.now())
    return Response({"email": email}, afterwards=partial(context.load.run, mail_token))


def reset(context: Context, request: Request, _identity: Identity) -> Response:
    """Set a new password with a token from the mail; the keys of the account are removed."""
    password, email = new_password(request), address(request.path_parameters["email"])
    token, now = _hashed(str(request.fields.get("token"))), context.now()
    good = resets.c.token == token, resets.c.user == email, resets.c.expires > now
    with context.database.read() as connection:  # a password is not hashed for everybody
        if not connection.execute(sa.select(sa.exists().where(*good))).scalar():
            raise _wrong_token()
    hashed = context.passwords.hash(password)
    with context.database.write() as connection:
        lock_user(connection, email)  # who sets the password voids the other tokens
        redeemed = redeem_token(connection, resets, token, now)
        row = redeemed and set_password(connection, redeemed["user"], hashed)
        if not row:
            raise _wrong_token()
        remove_all_keys(connection, email)
    context.load.wrong_passwords.forget(account=email)
    return Response(user_json(email, row["created"], activated=True))


def _mail_token(context: Context, email: str, now: int) -> None:
    token = secrets.token_hex(32)
    this = sa.update(users).where(users.c.email == email, ACTIVE, may_mail(now))
    with context.database.write() as connection:
        if connection.execute(this.values(mailed=now)).rowcount != 1:
            return
        row = {"token": _hashed(token), "user": email, "expires": now + RESET_LIFETIME}
        connection.execute(sa.insert(resets).values(**row))
    context.mailer.send(NEW_PASSWORD, email, token, f"{context.endpoint}/#reset")


def _hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _unchanged(identity: Identity) -> sa.ColumnElement[bool]:
    """Return the condition that the password is still the one that was given."""
    return users.c.password == identity.hashed


def _wrong_token() -> Refused:
    return Refused(400, "Invalid reset token")
