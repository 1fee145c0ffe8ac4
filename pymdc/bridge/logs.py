"""What the bridge logs: lines for people or JSON for programs, one for each request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pymdc.bridge.settings import MAX_LOGGED

_SECRETS = re.compile(
    # What follows these names in a path, whatever it is, and each other text of more hexadecimal
    # digits than the hash of a file, unless it is a public key in the path of the keys.
    r"(/(?:activations|resets|invitations)/)[^/?#]+|(?<![0-9a-f])(?<!/keys/)[0-9a-f]{41,}",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", re.IGNORECASE)  # in its place
_log = logging.getLogger("pymdc.bridge.requests")


def _ignore(_entry: Entry) -> None:
    pass


@dataclass(slots=True, eq=False)
class Entry:
    """What is logged and counted of one request, or of one channel.

    *address* is the IP address of the client; *who* is a user, a key, or a token's bucket.
    *count* is called with the entry at the end.
    """

    address: str
    method: str
    path: str
    count: Callable[[Entry], None] = _ignore
    who: str = "-"
    route: str = "-"  # its path in the table of the routes
    status: int = 0
    received: int = 0  # bytes of the request's body
    sent: int = 0  # bytes of the response's body
    note: str = ""  # why the request was refused
    quiet: bool = False  # whether success is worth a line at DEBUG alone
    seconds: float = 0.0
    request: str = field(default_factory=lambda: secrets.token_hex(8))
    begun: float = field(default_factory=time.monotonic)

    def finish(self, status: int, *, note: str = "") -> None:
        """Count and log the request."""
        self.seconds = time.monotonic() - self.begun
        self.status, self.note = status, note or self.note
        self.count(self)
        level = logging.DEBUG if self.quiet and status < 400 else logging.INFO
        if _log.isEnabledFor(level):
            # Not `_log.log`, which looks for the caller: that takes as long as the rest.
            _log.handle(logging.LogRecord(_log.name, level, __file__, 0, self, None, None))

    def __str__(self) -> str:
        path = _word(_without_secrets(self.path))
        line = (
            f"{_word(self.address)} {_word(_name(self.who))} {self.method} {path} {self.status}"
            f" in={self.received} out={self.sent} {self.seconds:.4f}s {self.request}"
        )
        return f"{line} {json.dumps(_without_secrets(self.note))}" if self.note else line

    def fields(self) -> dict[str, object]:
        """Return what a line of JSON contains."""
        fields: dict[str, object] = {
            "address": self.address,
            "who": _name(self.who),
            "method": self.method,
            "path": _without_secrets(self.path),
            "status": self.status,
            "received": self.received,
            "sent": self.sent,
            "seconds": round(self.seconds, 4),
            "request": self.request,
        }
        return fields | ({"note": _without_secrets(self.note)} if self.note else {})


class TextFormatter(logging.Formatter):
    """Writes a record as one line for people; those of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{_time(record)} {record.levelname} {_printable(record.getMessage())}"
        if record.exc_info:
            for part in self.formatException(record.exc_info).splitlines():
                line += f"\n    {_printable(part)}"
        return line


class JSONFormatter(logging.Formatter):
    """Writes a record as one line of JSON in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.msg, Entry):
            fields |= record.msg.fields()
        else:
            fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JSONFormatter}


def configure(level: str, style: str) -> None:
    """Log to stderr from now on; of other packages, only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[style]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pymdc.bridge").setLevel(level.upper())


def _without_secrets(text: str) -> str:
    return _SECRETS.sub(r"\1...", text)[:MAX_LOGGED]


def _name(text: str) -> str:
    """Return the name of a user, or a key; never a password that stands in its place."""
    return text if len(text) < 64 else _PASSWORD.sub("...", text)[:MAX_LOGGED]


def _word(text: str) -> str:
    """Return *text* so that it is one word of a line."""
    return _printable(text).replace(" ", "\\x20") or "-"


def _printable(text: str) -> str:
    """Return *text* with each character escaped that would begin a line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"
