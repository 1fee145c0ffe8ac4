"""What the bridge logs: lines for people or JSON for programs, one for each request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the program reads this module even if Starlette is missing
    from starlette.types import Scope

_ACTIVATION = re.compile(r"(/(?:activations|resets)/)[^/]+", re.IGNORECASE)
_BUILT_IN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_TEXT = 500  # characters of a field that a client chooses
_log = logging.getLogger("pymdc.bridge.requests")


@dataclass
class Entry:
    """The line of one request.

    *address* is the IP address of the client, and *path* is as sent; *who* is a user, a key, or a
    token's bucket.
    """

    address: str
    method: str
    path: str
    who: str = "-"
    status: int = 0
    sent: int = 0  # bytes of the response's body
    received: int = 0  # bytes of the request's body
    note: str = ""  # why the request was refused
    request: str = field(default_factory=lambda: secrets.token_hex(4))
    begun: float = field(default_factory=time.monotonic)

    def finish(self, status: int, received: int, *, note: str = "") -> None:
        """Log the request with its *status* and the bytes *received*."""
        if not _log.isEnabledFor(logging.INFO):
            return
        self.status, self.received, self.note = status, received, note or self.note
        fields = {
            "address": self.address,
            "who": _shown(self.who).replace(" ", "\\x20"),
            "method": self.method,
            "path": _shown(self.path),
            "status": self.status,
            "received": self.received,
            "sent": self.sent,
            "seconds": round(time.monotonic() - self.begun, 4),
            "request": self.request,
        } | ({"note": _shown(self.note)} if self.note else {})
        _log.info(" ".join(map(str, fields.values())), extra=fields)


def new_entry(scope: Scope, method: str) -> Entry:
    """Return the entry of a request or channel."""
    address = str((scope.get("client") or ("-",))[0])
    return Entry(address, method, scope["raw_path"].decode("latin-1"))


def _shown(text: str) -> str:
    """Return *text* without tokens, on one line and not too long: a client has chosen it."""
    masked = _ACTIVATION.sub(r"\1...", text[:_MAX_TEXT])
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in masked)


class JSONFormatter(logging.Formatter):
    """Writes a record as one line of JSON, with the fields that it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extra = {name: value for name, value in vars(record).items() if name not in _BUILT_IN}
        message = {} if extra else {"message": record.getMessage()}
        if record.exc_info:
            message["traceback"] = self.formatException(record.exc_info)
        head = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        return json.dumps(head | message | extra, ensure_ascii=False, default=str)


def configure(level: str, style: str) -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JSONFormatter()
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
