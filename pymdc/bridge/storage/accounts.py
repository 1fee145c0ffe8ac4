"""Accounts: their passwords, their keys, and the rows that go with them."""

from __future__ import annotations

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import point
from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.tables import (
    batches,
    buckets,
    invitations,
    nonce_floors,
    old_nonces,
    public_keys,
    resets,
    tokens,
    used_nonces,
    users,
)

# An account that can be used.
ACTIVE = sa.and_(users.c.activation.is_(None), users.c.removed.is_(None), ~users.c.disabled)


def has_account(email: str) -> sa.ColumnElement[bool]:
    """Return the condition that a user, who was authenticated, is still there.

    If the address was registered again meanwhile, that account is not activated yet.
    """
    there = users.c.removed.is_(None), users.c.activation.is_(None)
    return sa.exists().where(users.c.email == email, *there)


def account_removed() -> Refused:
    """Return the refusal of a request whose user was removed while it was under way."""
    return Refused(401, "User account was removed")


def set_password(
    connection: sa.Connection, email: str, hashed: str, *conditions: sa.ColumnElement[bool]
) -> sa.RowMapping | None:
    """Set the password of an active account that meets *conditions*; return its row, or None.

    Tokens that somebody got with the old password are void.
    """
    this = sa.update(users).where(users.c.email == email, ACTIVE, *conditions)
    changed = this.values(password=hashed).returning(users)
    row = connection.execute(changed).mappings().first()
    if row is not None:
        void_tokens(connection, email)
    return row


def mark_account_removed(
    connection: sa.Connection, email: str, now: int, *conditions: sa.ColumnElement[bool]
) -> bool:
    """Let nobody use an account that meets *conditions*; return whether there was one.

    Its buckets are marked as removed, and its keys are deleted.
    """
    this = sa.update(users).where(users.c.email == email, users.c.removed.is_(None), *conditions)
    if connection.execute(this.values(removed=now, activation=None)).rowcount != 1:
        return False
    void_tokens(connection, email)
    connection.execute(sa.delete(public_keys).where(public_keys.c.user == email))
    owned = sa.update(buckets).where(buckets.c.user == email, buckets.c.removed.is_(None))
    connection.execute(owned.values(removed=now))
    return True


def forget_account(connection: sa.Connection, email: str) -> None:
    """Delete the row of an account without buckets, and what else names its address.

    The nonces of its keys are kept, so that no recorded request can be repeated.
    """
    for table in (used_nonces, nonce_floors, old_nonces):
        connection.execute(sa.delete(table).where(table.c.owner == email))
    used = sa.update(invitations).where(invitations.c.email == email)
    connection.execute(used.values(email=""))
    # Requests that were under way may have added some after the account was marked.
    for table in (public_keys, resets):
        connection.execute(sa.delete(table).where(table.c.user == email))
    connection.execute(sa.delete(users).where(users.c.email == email))


def delete_old_registrations(connection: sa.Connection, before: int) -> None:
    """Delete the users who registered *before* a time, and have not activated their account."""
    old = users.c.activation.is_not(None), users.c.created < before
    # Locked: one of them may be activated just now.
    select = sa.select(users.c.email).where(*old).with_for_update()
    found = connection.execute(select).scalars().all()
    for batch in batches(found):
        for column in public_keys.c.user, users.c.email:
            connection.execute(sa.delete(column.table).where(column.in_(batch)))


def remove_all_keys(connection: sa.Connection, email: str) -> None:
    """Remove the public keys of a user, and take them off the lists of the user's buckets."""
    this = sa.delete(public_keys).where(public_keys.c.user == email)
    removed = connection.execute(this.returning(public_keys.c.point)).scalars().all()
    unlist(connection, email, {*removed})


def unlist(connection: sa.Connection, email: str, removed: set[str]) -> None:
    """Take the keys with the points *removed* off the lists of the user's buckets."""
    # All forms of a key have the same x, in the same place; to compute its point takes longer.
    x = {key[:64] for key in removed}
    owned = sa.select(buckets.c.id, buckets.c.pubkeys).where(buckets.c.user == email)
    if len(x) == 1:  # to parse the lists takes longer than to search in them
        owned = owned.where(sa.cast(buckets.c.pubkeys, sa.Text).icontains(*x))
    for bucket, listed in connection.execute(owned).all():
        kept = [
            key
            for key in listed
            if key[2:66].lower() not in x or point(bytes.fromhex(key)).hex() not in removed
        ]
        if kept != listed:
            this = buckets.c.id == bucket
            connection.execute(sa.update(buckets).where(this).values(pubkeys=kept))


def void_tokens(connection: sa.Connection, email: str) -> None:
    """Delete the tokens for the buckets of a user, and those for a new password."""
    connection.execute(sa.delete(resets).where(resets.c.user == email))
    owned = sa.select(buckets.c.id).where(buckets.c.user == email)
    connection.execute(sa.delete(tokens).where(tokens.c.bucket.in_(owned)))
