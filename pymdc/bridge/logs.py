"""What the bridge logs: lines for people or JSON for programs, one for each request."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import secrets
import select
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, TextIO

from pymdc._text import printable
from pymdc.bridge.errors import DamagedDatabaseError
from pymdc.bridge.settings import LAST_LINES_SECONDS, LOG_SECONDS, MAX_LOGGED, MAX_UNREAD

_SECRETS = re.compile(
    # What follows these names in a path, whatever it is, and each other text of more hexadecimal
    # digits than the hash of a file, unless it is a public key in the path of the keys.
    r"(/(?:activations|resets|invitations)/)[^/?#]+|(?<![0-9a-f])(?<!/keys/)[0-9a-f]{41,}",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", re.IGNORECASE)  # in its place
_PROCESS = secrets.token_hex(4)  # not a random id for each request: asking the system takes longer
_numbers = itertools.count()
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)
_LOOK_AGAIN = 0.02  # seconds
_log = logging.getLogger("pymdc.bridge.requests")
_faults = logging.getLogger("pymdc.bridge")


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
    request: str = field(default_factory=lambda: f"{_PROCESS}{next(_numbers):08x}")
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
        path = _word(without_secrets(self.path))
        line = (
            f"{_word(self.address)} {_word(_name(self.who))} {self.method} {path} {self.status}"
            f" in={self.received} out={self.sent} {self.seconds:.4f}s {self.request}"
        )
        return f"{line} {json.dumps(without_secrets(self.note))}" if self.note else line

    def fields(self) -> dict[str, object]:
        """Return what a line of JSON contains."""
        fields: dict[str, object] = {
            "address": self.address,
            "who": _name(self.who),
            "method": self.method,
            "path": without_secrets(self.path),
            "status": self.status,
            "received": self.received,
            "sent": self.sent,
            "seconds": round(self.seconds, 4),
            "request": self.request,
        }
        return fields | ({"note": without_secrets(self.note)} if self.note else {})


class TextFormatter(logging.Formatter):
    """Writes a record as one line for people; those of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{_time(record)} {record.levelname} {printable(record.getMessage())}"
        if record.exc_info:
            for part in self.formatException(record.exc_info).splitlines():
                line += f"\n    {printable(part)}"
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


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not before Python 3.11
    """Writes to stderr; the lines of an event loop together, soon after the first of them.

    Python lets another thread run during each write, and then has to wait for it; and lines that
    are made one after the other take less time.
    Nothing waits for whoever reads the lines: those that do not fit are kept, up to a limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        self._unread = ""
        self._lost = 0  # lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of *record* soon, or at once on a thread without an event loop."""
        self._records.append(record)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if len(self._records) == 1:
                loop.call_later(LOG_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self.lock or nullcontext():
            records, self._records = self._records, []
            with suppress(OSError, ValueError):  # nobody reads the log any more
                self._unread = write_some(self.stream, self._unread)
                if len(self._unread) > MAX_UNREAD:
                    self._lost += len(records)
                    return
                if self._lost:
                    records.insert(0, _lines_lost(self._lost))
                    self._lost = 0
                text = self._unread + "".join(map(self._line, records))
                self._unread = ""
                self._unread = write_some(self.stream, text)

    def close(self) -> None:
        """Write the lines that wait, if they are read soon."""
        deadline = time.monotonic() + LAST_LINES_SECONDS
        self.flush()
        while self._unread and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
            self.flush()
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001  # as in other handlers
            self.handleError(record)
            return ""


def write_some(stream: TextIO, text: str) -> str:
    """Write *text* as far as *stream* takes it at once, and return the rest."""
    while text and _takes_more(stream):
        # After poll, so many bytes fit into a pipe; another letter has up to four.
        size = _PIPE_BUF if text.isascii() else _PIPE_BUF // 4
        piece, text = text[:size], text[size:]
        stream.write(piece)
        stream.flush()
    return text


def _takes_more(stream: TextIO) -> bool:
    if not hasattr(select, "poll"):  # on Windows
        return True
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return True
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))


def _lines_lost(number: int) -> logging.LogRecord:
    message = "%d lines of the log are lost: nobody has read those before them"
    return logging.LogRecord("pymdc.bridge", logging.WARNING, __file__, 0, message, (number,), None)


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JSONFormatter}


def configure(level: str, style: str) -> None:
    """Log to stderr from now on; of other packages, only warnings."""
    # No line says it, and asking the system takes as long as the rest of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LineHandler()
    handler.setFormatter(FORMATTERS[style]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pymdc.bridge").setLevel(level.upper())


def log_damage(fault: str) -> None:
    """Log an object that cannot be sent."""
    _faults.error("%s; admin verify says which files need it", fault)


def log_fault(what: str, error: Exception) -> None:
    """Log that *what* failed; with a traceback, unless the message of *error* says everything."""
    if isinstance(error, DamagedDatabaseError):
        _faults.error("%s failed: %s", what, error)
    else:
        _faults.error("%s failed", what, exc_info=error)


def without_secrets(text: str) -> str:
    """Return *text* as it may be logged, and not too long."""
    if _SECRETS.search(text):  # replacing nothing takes twice as long
        text = _SECRETS.sub(r"\1...", text)
    return text[:MAX_LOGGED]


def _name(text: str) -> str:
    """Return the name of a user, or a key; never a password that stands in its place."""
    return text if len(text) < 64 else _PASSWORD.sub("...", text)[:MAX_LOGGED]


def _word(text: str) -> str:
    """Return *text* so that it is one word of a line."""
    return printable(text).replace(" ", "\\x20") or "-"


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.created * 1000) % 1000:03}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
