"""``login``: from an e-mail address and a password to a key in a profile."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from pymdc import ECDSA
from pymdc._cli import profile
from pymdc._cli.failures import Code, Failure, failure_of
from pymdc._cli.options import verb, yes
from pymdc._cli.profile import Profile
from pymdc._cli.questions import confirm
from pymdc._cli.session import Session, connect
from pymdc._text import printable
from pymdc.api import Keys, Users
from pymdc.exceptions import BridgeError, HTTPError, NetworkError, unwrap

_POLL = 2.0  # seconds
_TOKEN = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\?.*)?$")
_UNKNOWN, _WAITS = "Invalid email or password", "User account has not been activated"
_TAKEN = "Email is already registered"
_NEEDS_INVITATION = "Registration needs an invitation"


@verb
@click.argument("url", required=False)
@click.option("--email", metavar="ADDRESS", help="The e-mail address; else it is asked for.")
@click.option("--invitation", metavar="CODE", help="For a bridge that registers invited people.")
@yes
def login(
    session: Session, url: str | None, email: str | None, invitation: str | None, yes: bool
) -> None:
    """Sign in at the bridge at URL, or register there.

    Asks for the e-mail address and the password. Only a new key and URL are kept, in a profile;
    the password is not. Without a terminal the password is the first line of stdin.
    """
    name = session.chosen_profile
    before = _profile_before(name)
    endpoint = connect(_url(url, before)).endpoint
    _check_replaced(before, name, endpoint, yes=yes)
    user = _user(email or (before.email if before and not url else ""))
    try:
        _sign_in(session, user, invitation)
    except (NetworkError, HTTPError) as error:
        raise _away(error, endpoint) from None
    path = _make_key(user, name, endpoint)
    if before and before.private_key and before.endpoint == endpoint:
        _remove_key(user, before)
    record = {"profile": name, "endpoint": endpoint, "email": user.username, "path": str(path)}
    session.out.record(record)
    session.out.summary(f"Signed in as {user.username}. The key is in {path}")
    if os.environ.get("PYMDC_PRIVATE_KEY"):
        session.out.note("PYMDC_PRIVATE_KEY is set: it is used, unless there is a --profile.")


def _profile_before(name: str) -> Profile | None:
    try:
        return profile.load(name)
    except Failure:  # it is replaced
        return None


def _url(url: str | None, before: Profile | None) -> str:
    url = url or (before.endpoint if before else None) or os.environ.get("PYMDC_ENDPOINT")
    if not url:
        raise Failure("which bridge? expected pymdc login http://HOST:6382", Code.USAGE)
    return url


def _check_replaced(before: Profile | None, name: str, endpoint: str, *, yes: bool) -> None:
    if before and before.endpoint != endpoint:
        question = f"Replace the profile {name}, which is for {before.endpoint}"
        confirm(f"{question} (--profile NAME makes another one)", yes=yes)


def _user(email: str) -> Users:
    if not sys.stdin.isatty():
        return _user_of_stdin(email)
    email = email or click.prompt("E-mail", err=True)
    return Users(email, click.prompt("Password", hide_input=True, err=True))


def _user_of_stdin(email: str) -> Users:
    if not email:
        raise Failure("whose account? expected --email, as there is no terminal", Code.USAGE)
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("expected the password as the first line of stdin", Code.USAGE)
    return Users(email, password)


def _sign_in(session: Session, user: Users, invitation: str | None) -> None:
    """Return when the account exists, has this password, and is activated."""
    state = _refusal(user)
    if state == _UNKNOWN:
        _register(session, user, invitation)
        state = _refusal(user)
    if state == _WAITS:
        _await_activation(session, user)
    elif state:
        raise BridgeError({"error": state})


def _away(error: Exception, endpoint: str) -> Failure:
    """Return a failure that names the bridge to look at: it is in no profile yet."""
    failure = failure_of(error)
    remedy = failure.remedy.replace("pymdc doctor", f"pymdc doctor {endpoint}")
    return Failure(failure.message, failure.code, remedy)


def _refusal(user: Users) -> str:
    """Return why the bridge does not accept the user, or '' if it does."""
    return _refusal_of(Keys(user).list)


def _refusal_of(call: Callable[[], Any]) -> str:
    try:
        unwrap(call())
    except BridgeError as error:
        return error.message
    return ""


def _register(session: Session, user: Users, invitation: str | None) -> None:
    message = "the bridge does not know this address with this password"
    wrong = Failure(message, Code.SIGN_IN)
    if not sys.stdin.isatty():
        raise Failure(message, Code.SIGN_IN, "pymdc login registers you on a terminal")
    email = printable(user.username)
    session.out.note(f"There is no account {email}, or the password is wrong.")
    if not click.confirm(f"Register {email}?", err=True):
        raise wrong
    if click.prompt("Password again", hide_input=True, err=True) != user.password:
        raise Failure("the two passwords are not the same; nothing was registered")
    refusal = _refusal_of(partial(user.register, invitation=invitation))
    if refusal == _NEEDS_INVITATION and not invitation:
        invitation = click.prompt("Invitation", err=True)
        refusal = _refusal_of(partial(user.register, invitation=invitation))
    if refusal == _TAKEN:
        raise Failure(f"{email} is registered; the password is wrong", Code.SIGN_IN)
    if refusal:
        raise BridgeError({"error": refusal})
    session.out.note(f"Registered. A link is on its way to {email}.")


def _await_activation(session: Session, user: Users) -> None:
    if not sys.stdin.isatty():
        remedy = "open the link in the mail, then run the same command again"
        raise Failure("the account is not activated yet", Code.SIGN_IN, remedy)
    line: str | None = None
    try:
        click.echo("Open the link, or paste it here: ", nl=False, err=True)
        while _refusal(user) == _WAITS:
            line = _line_within(_POLL)
            if line is not None:
                _activate(user, line.strip())
    except KeyboardInterrupt:
        raise click.Abort from None  # which ends the line of the question
    if line is None:  # nothing was typed after the question
        click.echo(err=True)
    session.out.note("Activated.")


def _activate(user: Users, text: str) -> None:
    if not text:
        return
    if found := _TOKEN.search(text):
        problem = _refusal_of(partial(user.activate, found[1]))
    else:
        problem = "that is no link with 64 hexadecimal digits at its end"
    if problem:
        click.echo(f"{problem}. Open the link, or paste it here: ", nl=False, err=True)


def _line_within(seconds: float) -> str | None:
    """Return the line that is typed within so many *seconds*, or None."""
    if os.name == "posix" and not select.select([sys.stdin], [], [], seconds)[0]:
        return None
    line = sys.stdin.readline()
    if not line:
        raise click.Abort
    return line


def _make_key(user: Users, name: str, endpoint: str) -> str:
    key_pair, keys = ECDSA(), Keys(user)
    unwrap(keys.create(key_pair))
    saved = Profile(endpoint, user.username, key_pair.get_private_key())
    try:
        return str(profile.save(name, saved))
    except BaseException:
        unwrap(keys.delete(key_pair))
        raise


def _remove_key(user: Users, before: Profile) -> None:
    """Remove the key of the profile that was replaced, if the account has it."""
    _refusal_of(partial(Keys(user).delete, before.key_pair()))
