"""``logout``, ``whoami`` and ``keys``: the account, and this machine's place in it."""

from __future__ import annotations

import os

import click

from pymdc import ECDSA
from pymdc._cli import profile
from pymdc._cli.failures import Code, Failure, failure_of
from pymdc._cli.options import dry_run, verb
from pymdc._cli.session import Session
from pymdc._text import printable
from pymdc.exceptions import BridgeError, NetworkError, unwrap

_GONE = "Public key not registered", "Public key was not found"


@verb
@click.option("--force", is_flag=True, help="Remove the profile even if the bridge is away.")
def logout(session: Session, force: bool) -> None:
    """Remove the key at the bridge, and the profile."""
    if os.environ.get("PYMDC_PRIVATE_KEY") and not session.profile_name:
        remedy = "pymdc keys --remove KEY removes it at the bridge"
        raise Failure("the key is that of PYMDC_PRIVATE_KEY, and not of a profile", remedy=remedy)
    removed = True
    try:
        unwrap(session.keys.delete(session.identity.key_pair))
    except BridgeError as error:
        if error.message not in _GONE:
            raise
    except (NetworkError, Failure) as error:
        if not profile.path_of(session.chosen_profile).exists():
            raise
        if not force:
            failure = failure_of(error)
            remedy = f"{failure.remedy}\npymdc logout --force removes the profile alone".strip()
            raise Failure(failure.message, failure.code, remedy) from None
        removed = False
    profile.remove(session.chosen_profile)
    session.out.record({"profile": session.chosen_profile, "key_removed": removed})
    where = "" if removed else " The key is still registered at the bridge."
    session.out.summary(f"Signed out.{where}")


@verb
def whoami(session: Session) -> None:
    """Show who is signed in, and where."""
    listed = unwrap(session.keys.list())
    identity, key = session.identity, session.identity.key_pair.get_public_key()
    email = listed[0]["user"] if listed else identity.email
    record = {"email": email, "endpoint": session.endpoint, "key": key, "source": identity.source}
    text = f"{email} at {session.endpoint}, with the key {key} ({identity.source})"
    session.out.record(record, printable(text))


@verb
@click.option("--remove", metavar="KEY", help="Remove a public key: its first digits are enough.")
@dry_run
def keys(session: Session, remove: str | None, dry_run: bool) -> None:
    """List the public keys of the account; * marks the one in use."""
    listed = [entry["key"] for entry in unwrap(session.keys.list())]
    if remove is not None:
        _remove(session, _find(listed, remove), dry_run=dry_run)
        return
    mine = session.identity.key_pair.get_public_key()
    for key in listed:
        record = {"key": key, "in_use": key == mine}
        session.out.record(record, f"{key} {'*' if key == mine else ''}".rstrip())


def _find(listed: list[str], wanted: str) -> str:
    found = [key for key in listed if key.startswith(wanted.lower())]
    if not found:
        raise Failure(f"there is no key {wanted}", Code.NOT_FOUND, "pymdc keys lists the keys")
    if len(found) > 1:
        raise Failure(f"{len(found)} keys begin with {wanted}", remedy="\n".join(found))
    return found[0]


def _remove(session: Session, key: str, *, dry_run: bool) -> None:
    if key == session.identity.key_pair.get_public_key():
        raise Failure("that key is in use here", remedy="pymdc logout removes it")
    if not dry_run:
        unwrap(session.keys.delete(ECDSA(key)))
    session.out.record({"key": key, "removed": not dry_run})
    session.out.summary(f"{'would remove' if dry_run else 'removed'} {key}")
