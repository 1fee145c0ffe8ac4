"""Authentication: anybody, a user, a key that a bucket lists, or the holder of a token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import parse_signature, point, verify
from pymdc._crypto.signing import contract
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import js_number
from pymdc.bridge.serving.request import Request
from pymdc.bridge.settings import MAX_CACHED_KEYS, MAX_KEY, MAX_SIGNATURE
from pymdc.bridge.storage.accounts import account_removed, has_account
from pymdc.bridge.storage.database import has_one_writer
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.tables import (
    disabled,
    find_bucket,
    find_token,
    lock_user,
    public_keys,
    redeem_token,
    tokens,
    users,
)

_HEX = re.compile(r"([0-9a-fA-F]{2})+")
_USER_BY_KEY = Prepared(
    sa.select(*users.c["email", "activation", "disabled"], public_keys.c.proven)
    .join(public_keys)
    .where(public_keys.c.key == sa.bindparam("key"))
)


@dataclass(frozen=True)
class Identity:
    """Who sent a request.

    A user has an *email*, and a *key* if the request was signed.
    A key that only a bucket lists has no *email*.
    A token has the *bucket* and the *operation* that it is for.
    If a password was given, *hashed* is its stored hash.
    """

    email: str = ""
    key: str = ""
    bucket: str = ""
    operation: str = ""
    hashed: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.email or self.key or self.bucket or "-"


def password_owner(context: Context, request: Request) -> str:
    """Return whose password is in a request; refuse with 429 if it has to wait.

    So a password that has to wait takes nobody's turn.
    """
    email, _ = request.credentials or ("", "")
    request.entry.who = email  # known to the log also if the password is wrong
    context.load.wrong_passwords.check(account=email, address=request.entry.address)
    return email


def anybody(_context: Context, _request: Request) -> Identity:
    """Accept every request."""
    return Identity()


def user(context: Context, request: Request) -> Identity:
    """Accept a user's password or signature."""
    return _by_password(context, request) or _by_key(context, request)


def user_or_listed_key(context: Context, request: Request) -> Identity:
    """Accept a user, or the signature of a key that has no user and is listed by the bucket."""
    return _by_password(context, request) or _by_key(context, request, listed=True)


def account_holder(context: Context, request: Request) -> Identity:
    """Accept the password of the account in the path."""
    identity = _by_password(context, request)
    if identity is None:
        raise Refused(401, "No authentication strategy detected")
    if identity.email != request.path_parameters["email"].lower():
        raise Refused(403, "Not authorized for this account")
    return identity


def token_holder(context: Context, request: Request) -> Identity:
    """Accept a token; the token is used up even if the request fails later."""
    with context.database.write_once() as connection:
        return present_token(context, connection, request)


def present_token(context: Context, connection: sa.Connection, request: Request) -> Identity:
    """Use up the token of a request; refuse with 401 if there is none."""
    token = request.headers.get("x-token", "")
    return _token_identity(request, redeem_token(connection, tokens, token, context.now()))


def token_bearer(context: Context, request: Request) -> Identity:
    """Accept a token in the header or in the query, and leave it good."""
    with context.database.read() as connection:
        row = find_token(connection, tokens, _token_in_link(request), context.now())
    return _token_identity(request, row)


def spend_token_of_bearer(
    context: Context, connection: sa.Connection, request: Request
) -> Identity:
    """Use up the token that `token_bearer` accepted; refuse with 401 if another request has."""
    row = redeem_token(connection, tokens, _token_in_link(request), context.now())
    return _token_identity(request, row)


def _token_in_link(request: Request) -> str:
    return request.headers.get("x-token") or request.query_parameters.get("token", "")


def _token_identity(request: Request, row: Row | None) -> Identity:
    if row is None:
        raise Refused(401, "Invalid or expired token")
    identity = Identity(bucket=row["bucket"], operation=row["operation"])
    request.entry.who = str(identity)
    return identity


def _by_password(context: Context, request: Request) -> Identity | None:
    if request.credentials is None:
        return None
    email, password = password_owner(context, request), request.credentials[1]
    throttle, address = context.load.wrong_passwords, request.entry.address
    with context.database.read() as connection:
        this = users.c.email == email.lower(), users.c.removed.is_(None)
        statement = sa.select(users).where(*this)
        row = connection.execute(statement).mappings().first()
    if not context.passwords.matches(password, row["password"] if row else None) or not row:
        throttle.add(account=email, address=address)
        raise wrong_password()
    throttle.forget(account=email)  # not the address, which could then try other accounts
    return Identity(_active_email(row), hashed=row["password"])


def _by_key(context: Context, request: Request, listed: bool = False) -> Identity:
    key = _verified_key(request)
    with context.database.write_once() as connection:
        found = _use_as_user(context, connection, request, key, proven=listed)
        if found is not None:
            request.entry.who = found
            return Identity(found, key)
        # One thing after the other, on SQLite, or to say what is wrong.
        row = _USER_BY_KEY.first(connection, {"key": key})
        if listed and not (row and row["proven"]):
            bucket = find_bucket(connection, request.bucket)
            if key in bucket["pubkeys"] and not (row and row["email"] == bucket["user"]):
                row = None  # a mere claim of somebody else takes nothing from a listed key
            elif row is None:
                raise Refused(404, "Bucket not found")
        elif row is None:
            raise key_not_registered()
        if row is not None:
            request.entry.who = row["email"]  # known to the log also if the user is disabled
        email = "" if row is None else _active_email(row)
        _use_nonce(context, connection, request, key, email)
    return Identity(email, key)


def lock_identity(connection: sa.Connection, identity: Identity) -> None:
    """Let no other transaction change the user, nor add a bucket or a key for that user.

    Refuses with 401 if the account, the key or the password was no longer good by then: what a
    request adds, on which its sender can rely later, must not come after the sender is locked out.
    """
    lock_user(connection, identity.email)
    its_user = public_keys.c.user == identity.email
    has_key = sa.exists().where(public_keys.c.key == identity.key, its_user)
    has_password = sa.exists().where(
        users.c.email == identity.email, users.c.password == identity.hashed
    )
    query = sa.select(has_account(identity.email), has_key, has_password)
    is_there, key_is_good, password_is_good = connection.execute(query).one()
    if not is_there:
        raise account_removed()
    if identity.key and not key_is_good:
        raise key_not_registered()
    if identity.hashed and not password_is_good:
        raise wrong_password()


def key_not_registered() -> Refused:
    """Return the refusal of a signature by a key that no user has."""
    return Refused(401, "Public key not registered")


def wrong_password() -> Refused:
    """Return the refusal of a password, which does not say whether there is such an account."""
    return Refused(401, "Invalid email or password")


def has_proof(context: Context, connection: sa.Connection, request: Request, key: str) -> bool:
    """Say whether *key* itself signed the request, for the user that the request names.

    Refuses a signature that is wrong or a replay.
    """
    if "x-signature" not in request.headers or request.headers.get("x-pubkey") != key:
        return False
    _verified_key(request)
    _use_nonce(context, connection, request, key)
    return True


def _use_as_user(
    context: Context, connection: sa.Connection, request: Request, key: str, *, proven: bool
) -> str | None:
    """Find the active user of a key, and use the nonce; None if they have to be looked at."""
    if has_one_writer(connection):
        return None
    try:
        nonce = _nonce(request)
    except Refused:
        return None
    return context.nonce_rule.use_as_user(
        connection, key, _point(key), nonce, _signature_r(request), proven=proven
    )


def _use_nonce(
    context: Context, connection: sa.Connection, request: Request, key: str, email: str = ""
) -> None:
    # The key is an owner too: a bucket may still list it after its user has removed it.
    owners = [owner for owner in (email, _point(key)) if owner]
    if not context.nonce_rule.use(connection, owners, _nonce(request), _signature_r(request)):
        raise Refused(401, "Invalid nonce supplied")


def _verified_key(request: Request) -> str:
    """Return the public key in the headers if the signature there is by that key."""
    key, signature = request.headers.get("x-pubkey"), request.headers.get("x-signature")
    if not key or not signature:
        raise Refused(401, "No authentication strategy detected")
    too_long = len(key) > MAX_KEY or len(signature) > MAX_SIGNATURE
    if too_long or not _HEX.fullmatch(key) or not _HEX.fullmatch(signature):
        raise Refused(401, "Invalid signature")
    try:
        der = bytes.fromhex(signature)
        if not _is_signed_by(request, key, der):
            parse_signature(der)
            raise Refused(401, "Invalid signature")
    except ValueError:
        raise Refused(400, "Signature without r or s") from None
    return key


def _is_signed_by(request: Request, key: str, der: bytes) -> bool:
    payload = request.body if request.expects_body else request.query.encode("latin-1")
    try:
        return verify(bytes.fromhex(key), contract(request.method, request.path, payload), der)
    except ValueError:
        return False


@lru_cache(maxsize=MAX_CACHED_KEYS)
def _point(key: str) -> str:
    """Return the point of a key, which is the same for each of the key's encodings."""
    return point(bytes.fromhex(key)).hex()


def _signature_r(request: Request) -> str:
    """Return r of the signature, which is valid: 64 hexadecimal digits."""
    r, _ = parse_signature(bytes.fromhex(request.headers["x-signature"]))
    return f"{r:064x}"


def _active_email(row: Row | sa.RowMapping) -> str:
    if row["activation"] is not None:
        raise Refused(401, "User account has not been activated")
    if row["disabled"]:
        raise disabled()
    return str(row["email"])


def _nonce(request: Request) -> float:
    fields = request.fields if request.expects_body else request.query_parameters
    try:
        nonce = js_number(fields.get("__nonce") or 0)
    except ValueError:
        raise Refused(400, "User validation failed") from None
    if nonce <= 0:
        raise Refused(401, "Invalid nonce supplied")
    return nonce
