"""Users: registration and activation.

Somebody may register an address that is not theirs, before its owner or after. So a registration
that nobody has activated is replaced as a whole by a later one, which takes over neither its
password nor its key nor its link.
"""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused
from pymdc.bridge.mail import ACTIVATION
from pymdc.bridge.routes.keys import claim_key, public_key
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import ADDRESS, MAIL_PAUSE, MAX_ADDRESS, MAX_REDIRECT
from pymdc.bridge.storage.database import insert_new
from pymdc.bridge.storage.tables import invitations, public_keys, users

_WRONG_TOKEN = "Invalid activation token"
_PASSWORD = re.compile(r"[0-9a-fA-F]{64}")


def register(context: Context, request: Request, _identity: Identity) -> Response:
    """Register a user, who is sent an activation link."""
    password, email = new_password(request), address(request.fields.get("email"))
    key = None if request.fields.get("pubkey") is None else public_key(request.fields["pubkey"])
    invitation = _invitation(context, request)
    context.load.registrations.check(address=request.entry.address)
    context.load.registrations.add(address=request.entry.address)
    hashed, activation, now = context.passwords.hash(password), secrets.token_hex(32), context.now()
    row: dict[str, Any] = {"email": email, "password": hashed, "activation": activation}
    row |= {"created": now, "mailed": now}
    with context.database.write() as connection:
        if invitation is not None:
            _use_invitation(connection, invitation, email)
        if not insert_new(connection, users, **row) and not _register_again(connection, row, now):
            raise Refused(400, "Email is already registered")
        if key:
            claim_key(connection, email, key, proven=False)
    link, redirect = f"{context.endpoint}/activations/{activation}", request.fields.get("redirect")
    if isinstance(redirect, str) and len(redirect) <= MAX_REDIRECT:
        link += f"?redirect={quote(redirect, safe='')}"
    context.mailer.send(ACTIVATION, email, link)
    return Response(user_json(email, now, activated=False) | ({"pubkey": key} if key else {}))


def activate(context: Context, request: Request, _identity: Identity) -> Response:
    """Activate the user who was sent this token; redirect if the query says where to.

    A browser is redirected in any case: to the console, which says how it went.
    HEAD activates nobody: programs that check the links in mails send it.
    """
    this = users.c.activation == request.path_parameters["token"]
    shown = users.c.email, users.c.created
    # Who has read one mail may be sent the next one at once.
    changed = sa.update(users).where(this).values(activation=None, mailed=None).returning(*shown)
    statement = sa.select(*shown).where(this) if request.method == "HEAD" else changed
    with context.database.write() as connection:
        row = connection.execute(statement).first()
    if row is None and request.prefers_html:
        request.entry.note = _WRONG_TOKEN
        return _redirect("/#not-activated")
    if row is None:
        raise Refused(400, _WRONG_TOKEN)
    target = quote(request.query_parameters.get("redirect", ""), safe=":/%#?=@[]!$&'()*+,;")
    if target or request.prefers_html:
        return _redirect(target or "/#activated")
    return Response(user_json(*row, activated=True))


def new_password(request: Request) -> str:
    """Return the password in the body, which is a hash of the user's; refuse what is none."""
    password = request.fields.get("password")
    if not isinstance(password, str) or not _PASSWORD.fullmatch(password):
        raise Refused(400, "Password must be hex encoded SHA-256 hash")
    return password


def address(value: object) -> str:
    """Return *value* in lower case if it is an e-mail address; else refuse it."""
    if not isinstance(value, str) or not ADDRESS.fullmatch(value) or len(value) > MAX_ADDRESS:
        raise Refused(400, "User validation failed")
    return value.lower()


def may_mail(now: int) -> sa.ColumnElement[bool]:
    """Return the condition that a user was sent no mail a short while ago.

    One that was sent much later than *now* does not count: the clock was set back since then. A
    little later, it was sent by another bridge, or by a request that was faster than this one.
    """
    recent = sa.between(users.c.mailed, now - MAIL_PAUSE + 1, now + MAIL_PAUSE - 1)
    return sa.or_(users.c.mailed.is_(None), ~recent)


def user_json(email: str, created: int, *, activated: bool) -> dict[str, object]:
    """Return a user as the API shows it."""
    return {"activated": activated, "created": iso_time(created), "email": email, "id": email}


def _redirect(target: str) -> Response:
    return Response(status=302, headers=(("Location", target),))


def _register_again(connection: sa.Connection, row: dict[str, Any], now: int) -> bool:
    """Replace a registration that waits to be activated; return whether there was one."""
    waits = sa.and_(users.c.activation.is_not(None), ~users.c.disabled, users.c.removed.is_(None))
    this = sa.update(users).where(users.c.email == row["email"], waits, may_mail(now))
    if connection.execute(this.values(**row)).rowcount != 1:
        return False
    connection.execute(sa.delete(public_keys).where(public_keys.c.user == row["email"]))
    return True


def _invitation(context: Context, request: Request) -> str | None:
    """Return the invitation that the registration needs; refuse where there is none."""
    if context.registration == "open":
        return None
    if context.registration == "closed":
        raise Refused(403, "Registration is closed")
    invitation = request.fields.get("invitation")
    if not isinstance(invitation, str):
        raise Refused(403, "Registration needs an invitation")
    return invitation


def _use_invitation(connection: sa.Connection, invitation: str, email: str) -> None:
    """Use an invitation up; the same address may use it again while it waits to be activated."""
    mine = sa.or_(invitations.c.email.is_(None), invitations.c.email == email)
    this = sa.update(invitations).where(invitations.c.code == invitation, mine)
    if connection.execute(this.values(email=email)).rowcount != 1:
        raise Refused(403, "The invitation is not valid")
