"""The options of ``python -m pymdc.bridge``; each has an environment variable as well."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pymdc import __version__
from pymdc.bridge.settings import NONCE_RULES, REGISTRATIONS, MiB, Settings

PREFIX = "PYMDC_BRIDGE_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


class Option(NamedTuple):
    """A row of the table: ``--NAME``, or its variable, sets *setting*."""

    name: str
    setting: str
    default: object
    help: str
    kind: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    secret: bool = False  # then there is no option, but a variable, and one ending in _FILE

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper().replace("-", "_")


def _megabytes(text: str) -> int:
    return round(float(text) * MiB)


def _switch(text: str) -> bool:
    values = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return values[text.lower()]


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


OPTIONS = (
    Option("data", "data", "metadisk-data", "the folder in which everything is stored"),
    Option("host", "host", Settings.host, "the address to listen on"),
    Option("port", "port", 6382, "the port to listen on; 0 is any", int),
    Option("url", "url", None, "how users reach the bridge: in mails, and for channels"),
    Option("trusted-proxies", "trusted_proxies", (), "whose X-Forwarded-* count", _addresses),
    Option("tls-cert", "tls_cert", None, "the certificate chain in PEM; read again on SIGHUP"),
    Option("tls-key", "tls_key", None, "the private key of the certificate"),
    Option("smtp", "smtp", None, "the mail server: smtp[s]://[USER@]HOST[:PORT]"),
    Option("smtp-password", "smtp_password", None, "the password of its user", secret=True),
    Option("mail-from", "mail_from", None, "the sender of its mails, if not the user at --smtp"),
    Option("registration", "registration", "open", "who may register", choices=REGISTRATIONS),
    Option("user-limit", "user_limit", None, "GB that a user may store", float),
    Option("storage-limit", "storage_limit", None, "GB that all users may store", float),
    Option("min-free", "min_free", "64", "MiB on the disk that uploads leave free", _megabytes),
    Option("fsync", "fsync", "on", "off: a power cut may lose what is acknowledged", _switch),
    Option(
        "nonce-rule", "nonce_rule", Settings.nonce_rule, "which nonces are fresh", str, NONCE_RULES
    ),
    Option("patience", "patience", Settings.patience, "seconds that a client may stall", float),
    Option("grace", "grace", Settings.grace, "seconds for requests in flight at the end", float),
    Option("metrics-port", "metrics_port", None, "a port of its own for /metrics", int),
    Option("metrics-token", "metrics_token", None, "who has it may ask /metrics", secret=True),
    Option("log-level", "log_level", "info", "what is logged", str, LOG_LEVELS),
    Option("log-format", "log_format", "text", "how it is written", str, LOG_FORMATS),
)


def parse(arguments: list[str] | None, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings by name: from the options, else the variables, else the defaults."""
    parser = argparse.ArgumentParser(
        "python -m pymdc.bridge",
        description="Run a bridge. Each option --SOME-NAME can be the variable"
        f" {PREFIX}SOME_NAME as well.",
        epilog="A password or token is never an option: "
        + ", ".join(f"{option.variable}, or _FILE" for option in OPTIONS if option.secret),
    )
    parser.add_argument("--version", action="version", version=f"pymdc.bridge {__version__}")
    parser.add_argument(
        "--no-fsync",
        dest="fsync",
        action="store_false",
        default=argparse.SUPPRESS,
        help="the same as --fsync off",
    )
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if not option.secret:
            shown = "" if option.default in (None, ()) else f" ({option.default})"
            parser.add_argument(
                f"--{option.name}",
                dest=option.setting,
                default=argparse.SUPPRESS,
                type=option.kind,
                choices=option.choices,
                help=option.help + shown,
            )
        try:
            values[option.setting] = _from_environment(option, environ)
        except (ValueError, OSError, argparse.ArgumentTypeError) as error:
            parser.error(str(error))
    given = vars(parser.parse_args(arguments))
    if _has_password(given.get("smtp")):
        parser.error(f"other users can read options: set {PREFIX}SMTP_PASSWORD to the password")
    return values | given


def _from_environment(option: Option, environ: Mapping[str, str]) -> object:
    """Return the value in the environment, else the default; an empty variable is not set."""
    text, name = environ.get(option.variable), option.variable
    if option.secret and (path := environ.get(f"{name}_FILE")):
        name = f"{name}_FILE"
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
    if not text:
        default = option.default
        return option.kind(default) if isinstance(default, str) else default
    try:
        value = option.kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected {option.help}") from None
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{name}: {error}") from None
    if option.choices and value not in option.choices:
        raise ValueError(f"{name} is {text!r}; expected one of {', '.join(option.choices)}")
    return value


def _has_password(url: str | None) -> bool:
    # Not urlsplit: a slash in the password would hide it.
    return ":" in (url or "").rpartition("@")[0].partition("//")[2]
