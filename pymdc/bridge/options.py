"""The options of ``python -m pymdc.bridge``; each has an environment variable as well."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pymdc import __version__
from pymdc.bridge.mail import parse_url
from pymdc.bridge.settings import (
    DATABASE_URL,
    NONCE_RULES,
    REGISTRATIONS,
    STORE_URL,
    MiB,
    Settings,
    WrongSetting,
)

VERSION = f"pymdc.bridge {__version__}"
PREFIX = "PYMDC_BRIDGE_"
STORAGE = ("data", "database", "database_password", "store")  # settings: where a bridge stores
_URLS_WITH_PASSWORD = ("smtp", "database")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


class Option(NamedTuple):
    """A row of the table: ``--NAME``, or its variable.

    *read* makes a setting of the text; its ValueError says what was expected.
    A text that is *secret* is never shown, nor read from the command line.
    """

    name: str
    default: str  # as one would write it; without one, it is not set
    help: str
    read: Callable[[str], Any] = str
    secret: bool = False

    @property
    def setting(self) -> str:
        """The name of the setting."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.setting.upper()


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError("a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def _megabytes(text: str) -> int:
    try:
        return round(_number(text) * MiB)
    except OverflowError:
        raise ValueError("a number of MiB") from None


def _switch(text: str) -> bool:
    values = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if text.lower() not in values:
        raise ValueError("on or off")
    return values[text.lower()]


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _smtp(text: str) -> str:
    try:
        parse_url(text, None)
    except ValueError:
        raise ValueError("smtp[s]://[USER@]HOST[:PORT]") from None
    return text


def _database(text: str) -> str:
    try:
        Settings(database=text)
    except WrongSetting as error:
        raise ValueError(error.expected) from None
    return text


def _one_of(values: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text

    return read


OPTIONS = (
    Option("data", "metadisk-data", "the folder in which everything is stored"),
    Option(
        "database", "", f"PostgreSQL instead of a file in that folder: {DATABASE_URL}", _database
    ),
    Option("database-password", "", "the password of the database's user", secret=True),
    Option("store", "", f"where shards are, if not in that folder: {STORE_URL}"),
    Option("host", "127.0.0.1", "the address to listen on; 0.0.0.0 is any"),
    Option("port", "6382", "the port to listen on; 0 is any", _whole_number),
    Option("url", "", "where users reach the bridge, if elsewhere: http[s]://HOST[:PORT]"),
    Option(
        "trusted-proxies",
        "",
        "addresses or networks, with commas, whose X-Forwarded-* headers count",
        _addresses,
    ),
    Option("tls-cert", "", "the file of the certificate and its chain, in PEM"),
    Option("tls-key", "", "the file of the certificate's key, in PEM"),
    Option("smtp", "", "the mail server: smtp[s]://[USER@]HOST[:PORT]", _smtp),
    Option("smtp-password", "", "the password of the mail server's user", secret=True),
    Option("mail-from", "", "the sender of mails, if not the mail server's user"),
    Option(
        "registration", "open", "who may register: open, closed, invite", _one_of(REGISTRATIONS)
    ),
    Option("user-limit", "", "GB (10^9 bytes) that a user may store", _number),
    Option("storage-limit", "", "GB that all users together may store", _number),
    Option("min-free", "64", "MiB that uploads leave free on the disk", _megabytes),
    Option("fsync", "on", "off, or --no-fsync: a power cut may lose what was stored", _switch),
    Option("nonce-rule", "once", "which nonces are fresh: once, 2016", _one_of(NONCE_RULES)),
    Option("patience", "60", "seconds that a client may stall", _number),
    Option("drain", "0", "seconds that the bridge serves on, not ready, when it stops", _number),
    Option("grace", "6", "seconds for requests in flight when the bridge stops", _number),
    Option("metrics-port", "", "a port of its own for /metrics; 0 is any", _whole_number),
    Option("metrics-token", "", "the token that /metrics asks for", secret=True),
    Option("log-level", "info", "what is logged: debug, info, warning, error", _one_of(LOG_LEVELS)),
    Option("log-format", "text", "how it is written: text, json", _one_of(LOG_FORMATS)),
)


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings by name: from the options, else the variables, else the defaults.

    If one is wrong, print a line that names it, and exit with status 2.
    """
    try:
        return _settings(_options(arguments), environ)
    except WrongUse as error:
        print(f"pymdc.bridge: {error}", file=sys.stderr)
        sys.exit(2)


def storage_settings(
    given: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return the settings in `STORAGE`, as `parse` does: *given* are the texts of options.

    Raises `WrongUse` if one is wrong; other settings do not matter.
    """
    return _settings(given, environ, [option for option in OPTIONS if option.setting in STORAGE])


class WrongUse(Exception):
    """An option or a variable is wrong; the message names it, and shows no secret."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongUse(message)


class _RefuseSecret(argparse.Action):
    def __call__(
        self, _parser: object, _namespace: object, _values: object, option: str | None = None
    ) -> NoReturn:
        variable = PREFIX + self.dest.upper()
        raise WrongUse(f"{option} would be seen by others: set {variable}, or {variable}_FILE")


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the text of each option that was given, by the name of its setting."""
    parser = _Parser(
        "python -m pymdc.bridge",
        description="Run a bridge; python -m pymdc.bridge admin looks after one.",
        epilog=f"The variable for --SOME-NAME is {PREFIX}SOME_NAME. "
        + " and ".join(option.variable for option in OPTIONS if option.secret)
        + " are secret: they have no option, but a variable ending in _FILE, which names a file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument(
        "--no-fsync", dest="fsync", action="store_const", const="off", help=argparse.SUPPRESS
    )
    for option in OPTIONS:
        name, dest = f"--{option.name}", option.setting
        if option.secret:
            hidden = argparse.SUPPRESS
            parser.add_argument(name, dest=dest, action=_RefuseSecret, nargs="?", help=hidden)
        else:
            shown = f" ({option.default})" if option.default else ""
            parser.add_argument(name, dest=dest, metavar="...", help=option.help + shown)
    given, unknown = parser.parse_known_args(arguments)
    if unknown:  # without its value, which may be a password
        name = unknown[0].partition("=")[0]
        what = (
            f"{name} is no option" if name.startswith("-") else "a value stands without an option"
        )
        raise WrongUse(f"{what}; --help shows the options")
    return vars(given)


def _settings(
    given: Mapping[str, str], environ: Mapping[str, str], options: Sequence[Option] = OPTIONS
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for option in options:
        source, text = _text(option, given, environ)
        # With an empty option, such as --database "$URL", the bridge would store elsewhere.
        if not text and (option.default or (option.setting in STORAGE and option.setting in given)):
            raise WrongUse(f"{source} is empty; expected {option.help}")
        shown[option.setting] = _shown(option, source, text)
        try:
            values[option.setting] = option.read(text) if text else None
        except ValueError as error:
            raise WrongUse(f"{shown[option.setting]}; expected {error}") from None
    if values.get("trusted_proxies", ()) is None:
        values["trusted_proxies"] = ()
    try:
        Settings(**{name: values[name] for name in values if not name.startswith("log_")})
    except WrongSetting as error:
        raise WrongUse(f"{shown[error.name]}; expected {error.expected}") from None
    return values


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that look like those of the bridge, but are none."""
    known = {option.variable + end for option in OPTIONS for end in ("", "_FILE")}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _text(option: Option, given: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return where the text of *option* is from, and the text.

    A variable or a file that is empty is not set.
    """
    if option.setting in given:
        if option.name in _URLS_WITH_PASSWORD and _has_password(given[option.setting]):
            variable = f"{option.variable}_PASSWORD"
            raise WrongUse(
                f"--{option.name} has a password, which would be seen by others:"
                f" set {variable}, or {variable}_FILE"
            )
        return f"--{option.name}", given[option.setting]
    text, file = environ.get(option.variable), environ.get(f"{option.variable}_FILE")
    if option.secret and file:
        if text:
            raise WrongUse(f"{option.variable} and {option.variable}_FILE are both set")
        try:
            text = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise WrongUse(f"{option.variable}_FILE: {error}") from None
    return (option.variable, text) if text else (f"--{option.name}", option.default)


def _shown(option: Option, source: str, text: str) -> str:
    """Return the beginning of a line that says what is wrong with *text*."""
    if option.secret or option.name in (*_URLS_WITH_PASSWORD, "store"):  # perhaps with its key
        return f"{source} is wrong"
    return f"{source} is {text!r}" if text else f"{source} is not set"


def _has_password(url: str) -> bool:
    # Not urlsplit: a slash in the password would hide it.
    return ":" in url.rpartition("@")[0].partition("//")[2] or "password=" in url
