"""Profiles: the files that hold what a sign-in leaves behind, for its owner alone."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
import subprocess
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_path

from pymdc import ECDSA
from pymdc._cli.failures import Code, Failure

DEFAULT = "default"
_NAME = re.compile(r"\w[\w.@-]*", re.ASCII)
_SECTION = "profile"
_KEYS = {"endpoint", "email", "private-key", "key-command"}
_COMMENT = "# Made by pymdc login. Whoever can read this file can use the account.\n"


@dataclass(frozen=True)
class Profile:
    """An *endpoint* and a private key, or the *key_command* that prints it."""

    endpoint: str
    email: str = ""
    private_key: str = field(default="", repr=False)
    key_command: str = ""

    def key_pair(self) -> ECDSA:
        """Return the key pair; run the command that prints the private key, if that is so."""
        if self.private_key:
            return key_pair_of(self.private_key, "the profile's private-key")
        return key_pair_of(_run(self.key_command), "what key-command prints")


def path_of(name: str) -> Path:
    """Return the path of the profile *name*."""
    if not _NAME.fullmatch(name):
        expected = "expected letters, digits and . _ @ -"
        raise Failure(f"{name!r} is no name of a profile; {expected}", Code.USAGE)
    return user_config_path("pymdc", appauthor=False) / f"{name}.ini"


def load(name: str) -> Profile | None:
    """Return the profile *name*, or None if there is none."""
    path = path_of(name)
    try:
        text = path.read_text(encoding="utf-8")
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Failure(f"others may read {path}", Code.SIGN_IN, f"chmod 600 {path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8", Code.SIGN_IN) from None
    return _profile_of(_values(text, path), path)


def save(name: str, profile: Profile) -> Path:
    """Write the profile *name*, whole or not at all; return its path."""
    path = path_of(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}.part")
    lines = {
        "endpoint": profile.endpoint,
        "email": profile.email,
        "private-key": profile.private_key,
        "key-command": profile.key_command,
    }
    text = _COMMENT + "".join(f"{key} = {value}\n" for key, value in lines.items() if value)
    try:
        with open(
            os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return path


def remove(name: str) -> None:
    """Remove the profile *name*, if there is one."""
    path_of(name).unlink(missing_ok=True)


def key_pair_of(private_key: str, what: str) -> ECDSA:
    """Return the key pair of *private_key*; failures call it *what*, and do not show it."""
    try:
        return ECDSA(private_key=private_key.strip())
    except ValueError:
        message = f"{what} is no private key; expected 64 hexadecimal digits"
    raise Failure(message, Code.SIGN_IN)  # not in the except clause: that one's text might show it


def _values(text: str, path: Path) -> dict[str, str]:
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    try:
        parser.read_string(f"[{_SECTION}]\n{text}")
    except ConfigError as error:  # its text shows lines of the file
        line = getattr(error, "lineno", None) or getattr(error, "errors", [(0,)])[0][0]
        raise Failure(f"{path}, line {line - 1}: expected name = value", Code.SIGN_IN) from None
    values = dict(parser[_SECTION])
    if unknown := sorted(values.keys() - _KEYS):
        known = ", ".join(sorted(_KEYS))
        raise Failure(f"{path}: {unknown[0]} is unknown; known are {known}", Code.SIGN_IN)
    return values


def _profile_of(values: dict[str, str], path: Path) -> Profile:
    private_key, command = values.get("private-key", ""), values.get("key-command", "")
    if bool(private_key) == bool(command):
        raise Failure(f"{path}: expected either private-key or key-command", Code.SIGN_IN)
    endpoint = values.get("endpoint", "")
    if not endpoint:
        raise Failure(f"{path}: endpoint is missing; expected http://HOST:PORT", Code.SIGN_IN)
    return Profile(endpoint, values.get("email", ""), private_key, command)


def _run(command: str) -> str:
    """Return the first line that *command* prints; pass and others print notes after it."""
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"key-command ({command}): {reason}", Code.SIGN_IN) from None
    if done.returncode:
        raise Failure(f"key-command ({command}) ended with {done.returncode}", Code.SIGN_IN)
    return done.stdout.partition("\n")[0]
