"""``users``: accounts."""

from __future__ import annotations

import getpass
import secrets
import sys
import time
from functools import partial
from hashlib import sha256

import sqlalchemy as sa

from pymdc._text import count_text, printable, quota_text, size_text
from pymdc.bridge.admin.lists import find_user, user_rows
from pymdc.bridge.admin.output import Report, table, time_text
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.context import iso_time
from pymdc.bridge.js_number import json_number
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.storage.accounts import mark_account_removed, void_tokens
from pymdc.bridge.storage.disk import Reserve
from pymdc.bridge.storage.removal import finish_account_removal
from pymdc.bridge.storage.tables import buckets, invitations, pointers, users

_HEAD = ("user", "state", "registered (UTC)", ">keys", ">buckets", ">files", ">stored", ">limit")


def list_users(storage: Storage) -> Report:
    """List all users: their state, and how much they store.

    The limit is the user's own; - means that of the bridge, --user-limit.
    """
    with storage.database.read() as connection:
        rows = user_rows(connection)
    text = table(
        _HEAD,
        (
            (
                row["email"],
                _state(row),
                time_text(row["created"]),
                *(f"{row[name]:,}" for name in ("keys", "buckets", "files")),
                size_text(row["used"]),
                quota_text(row["storage"], "-"),
            )
            for row in rows
        ),
    )
    return Report([_user_json(row) for row in rows], text)


def activate(storage: Storage, email: str) -> Report:
    """Activate an account without the link in the mail."""
    return _change(storage, email, "is active", activation=None)


def disable(storage: Storage, email: str) -> Report:
    """Refuse all requests of a user, and all access to the user's buckets, from now on.

    Nothing is deleted; `users enable` undoes it. The answer to every request is 403
    "User account is disabled"; keys that the user's buckets list, and tokens, work no more either.
    """
    return _change(storage, email, "is disabled", disabled=True)


def enable(storage: Storage, email: str) -> Report:
    """Accept the requests of a disabled user again."""
    return _change(storage, email, "is enabled", disabled=False)


def set_password(storage: Storage, email: str) -> Report:
    """Set a user's password, which is asked on the terminal, or read as a line from stdin."""
    with storage.database.read() as connection:
        find_user(connection, email)
    hashed = Passwords().hash(sha256(_read_password(email)).hexdigest())
    return _change(storage, email, "has the new password", password=hashed)


def set_limit(storage: Storage, email: str, limit: float | None) -> Report:
    """Set how many GB a user may store in all buckets together.

    `default` means the limit of the bridge for each user, --user-limit. What is stored already
    stays.
    """
    what = "the limit of the bridge" if limit is None else quota_text(limit)
    return _change(storage, email, f"may store {what}", storage=limit)


def delete(storage: Storage, email: str, yes: bool) -> Report:
    """Delete a user with all keys, buckets and files; asks first, except with --yes."""
    with storage.database.read() as connection:
        row = find_user(connection, email)
    has = (count_text(row[name], name[:-1]) for name in ("buckets", "files"))
    what = f"{row['email']} with {' and '.join(has)} ({size_text(row['used'])})"
    if not yes:
        _confirm(f"Delete {what}?")
    remove = partial(_remove, storage, row["email"])
    if storage.has_file:
        Reserve(storage.path).run(remove, share=1)
    else:
        remove()
    return Report(_user_json(row), f"Deleted {what}.")


def invite(storage: Storage) -> Report:
    """Make an invitation: with its code one user can register, if --registration is invite."""
    code = secrets.token_hex(16)
    with storage.database.write() as connection:
        row = {"code": code, "created": int(time.time() * 1000)}
        connection.execute(sa.insert(invitations).values(**row))
    return Report({"invitation": code}, code)


def _change(storage: Storage, email: str, is_now: str, /, **values: object) -> Report:
    """Set columns of a user's row; the report says what the user *is_now*."""
    with storage.database.write() as connection:
        email = find_user(connection, email)["email"]
        connection.execute(sa.update(users).where(users.c.email == email).values(**values))
        if "password" in values:
            void_tokens(connection, email)
        if values.get("disabled"):
            owned = sa.select(buckets.c.id).where(buckets.c.user == email)
            connection.execute(sa.delete(pointers).where(pointers.c.bucket.in_(owned)))
        row = find_user(connection, email)
    return Report(_user_json(row), f"{email} {is_now}.")


def _remove(storage: Storage, email: str) -> None:
    with storage.database.write() as connection:
        mark_account_removed(connection, email, int(time.time() * 1000))
    finish_account_removal(storage.database, storage.objects, email)


def _read_password(email: str) -> bytes:
    if sys.stdin.isatty():
        password, again = (
            _ask_password(question)
            for question in (f"New password of {printable(email)}: ", "The same again: ")
        )
        if password != again:
            raise CommandError("the two passwords differ; nothing is changed")
    else:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not password:
        raise CommandError("the password is empty; nothing is changed")
    return password


def _ask_password(question: str) -> bytes:
    try:
        return getpass.getpass(question).encode()
    except UnicodeError:  # its text would show the password
        raise CommandError("the password is not UTF-8; nothing is changed") from None


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked on a terminal; --yes deletes without asking")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.buffer.readline().strip().lower() not in (b"y", b"yes"):
        raise CommandError("nothing is deleted")


def _state(row: sa.RowMapping) -> str:
    if row["removed"] is not None:
        return "being deleted"
    if row["disabled"]:
        return "disabled"
    return "active" if row["activated"] else "not activated"


def _user_json(row: sa.RowMapping) -> dict[str, object]:
    names = ("email", "keys", "buckets", "files", "used")
    return {name: row[name] for name in names} | {
        "created": iso_time(row["created"]),
        "state": _state(row),
        "limit": json_number(row["storage"]),
    }
