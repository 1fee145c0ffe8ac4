"""Mails with links: kept in an outbox until they are sent by SMTP."""

from __future__ import annotations

import logging
import re
import secrets
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pymdc.bridge.settings import (
    FIRST_RETRY,
    LAST_RETRY,
    MAIL_LIFETIME,
    MAIL_STOP_SECONDS,
    RESET_LIFETIME,
    SMTP_SECONDS,
    Settings,
)
from pymdc.bridge.storage.disk import lock, private, sync_file, sync_path

_PORTS = {"smtp": 25, "smtps": 465}
_UNBROKEN = policy.SMTP.clone(max_line_length=998)  # else a link is cut after 78 characters
_SERVER_FAILED = (OSError, smtplib.SMTPException)
_log = logging.getLogger("pymdc.bridge")


class Purpose(NamedTuple):
    """What a mail is for; it is given up if it cannot be sent for *lifetime* milliseconds."""

    subject: str
    text: str
    lifetime: int


ACTIVATION = Purpose(
    "Activate your Metadisk account",
    "Somebody, probably you, registered this address with a Metadisk bridge, and chose a password."
    " If it was you, open this link to activate the account:\n\n{}\n\n"
    "If it was not you, do not open the link: the account would have a password that you do not"
    " know.\n",
    MAIL_LIFETIME,
)
NEW_PASSWORD = Purpose(
    "A new password for your Metadisk account",
    "Somebody, probably you, asked for a new password for your Metadisk account."
    " If it was you, set a password with this token, which is good for an hour:\n\n{}\n\n"
    "In a browser, do that at {page}\n\n"
    "If it was not you, ignore this mail: without the token nothing changes.\n",
    RESET_LIFETIME,
)


@dataclass(frozen=True)
class _Server:
    """A mail server."""

    encrypted: bool
    host: str
    port: int
    user: str
    password: str = field(repr=False)

    @property
    def sender(self) -> str:
        """The sender of mails, if no other one is set."""
        return self.user if "@" in self.user else f"metadisk@{self.host}"


class Outbox:
    """Mails as files in *folder*: ``.part`` while one is written, then ``.eml`` until it is sent.

    A mail that cannot be sent gets another ending: ``.refused`` or ``.expired``.
    With *fsync*, a mail is on the disk when `put` returns.
    """

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._fsync = fsync

    def put(self, message: EmailMessage) -> None:
        """Keep *message*."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        part = self._folder / f"{time.time_ns()}-{secrets.token_hex(12)}.part"
        try:
            with open(part, "xb", opener=private) as file:
                file.write(bytes(message))
            if self._fsync:
                sync_file(part)
            part.rename(part.with_suffix(".eml"))
            if self._fsync:
                sync_path(self._folder)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def waiting(self) -> list[Path]:
        """Return the mails that wait to be sent, the oldest first."""
        return sorted(self._folder.glob("*.eml"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Run the block while no other bridge that uses the folder sends its mails."""
        with open(self._folder.with_suffix(".lock"), "ab", opener=private) as file:
            lock(file, wait=True)
            yield


@dataclass
class _Retry:
    """When something that failed is tried again, by `time.monotonic`."""

    due: float = 0
    pause: float = 0

    def failed(self) -> None:
        self.pause = min(2 * self.pause or FIRST_RETRY, LAST_RETRY)
        self.due = time.monotonic() + self.pause


class Mailer:
    """Sends mails through the server of the settings; what was not sent is tried again.

    Without a server, mails stay in the *outbox*, and ``announce`` is called with the address and
    the link or token.
    """

    def __init__(self, outbox: Outbox, settings: Settings) -> None:
        self._outbox = outbox
        self._server = (
            None if settings.smtp is None else parse_url(settings.smtp, settings.smtp_password)
        )
        own = "metadisk@localhost" if self._server is None else self._server.sender
        self._sender = settings.mail_from or own
        self._announce = settings.announce
        self._clock = settings.clock
        self._wake = threading.Event()
        self._stopping = False
        self._server_retry = _Retry()
        self._retries: dict[Path, _Retry] = {}

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Deliver mails on a thread while the block runs."""
        if self._server is None:
            yield
            return
        # A daemon: a server that does not answer must not hold the bridge when it stops.
        thread = threading.Thread(
            target=self._deliver_until_stopped,
            args=[self._server],
            name="pymdc-bridge-mail",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            self.stop()
            thread.join(MAIL_STOP_SECONDS)

    def stop(self) -> None:
        """Begin no other delivery; what is not sent is sent after the next start."""
        self._stopping = True
        self._wake.set()

    def waiting(self) -> int:
        """Return how many mails are in the outbox."""
        return len(self._outbox.waiting())

    def send(self, purpose: Purpose, email: str, link: str, page: str = "") -> None:
        """Send *link*, or a token for *page*, to *email*; if it cannot be kept, that is logged."""
        try:
            self._outbox.put(self._message(purpose, email, link, page))
            if self._server is not None:
                self._wake.set()
            elif self._announce is not None:
                self._announce(email, link)
        except Exception:  # noqa: BLE001  # also one of *announce*
            _log.exception("the mail to %s was not delivered", email)

    def _message(self, purpose: Purpose, email: str, link: str, page: str) -> EmailMessage:
        message, now = EmailMessage(_UNBROKEN), self._clock()
        message["Subject"] = purpose.subject
        message["From"] = self._sender
        message["To"] = email
        message["Date"] = _date(now)
        message["Expires"] = _date(now + purpose.lifetime / 1000)
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(purpose.text.format(link, page=page))
        return message

    def _deliver_until_stopped(self, server: _Server) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._deliver_due(server)
            except _SERVER_FAILED as error:
                self._server_retry.failed()
                _log.error(
                    "the mail server %s failed; mails are tried again in %d s: %s",
                    server.host,
                    round(self._server_retry.pause),
                    _reason(error),
                )
            except Exception:  # noqa: BLE001  # the thread is needed for the next mails
                self._server_retry.failed()
                _log.exception("the mails were not sent")
            self._wake.wait(self._pause())

    def _pause(self) -> float | None:
        """Return the seconds until a mail is due, or None if none waits."""
        if not self._retries:
            return None
        due = min(retry.due for retry in self._retries.values())
        return max(0.0, max(due, self._server_retry.due) - time.monotonic())

    def _deliver_due(self, server: _Server) -> None:
        """Send the mails that are due; raise if the server cannot be used."""
        now, waiting = time.monotonic(), self._outbox.waiting()
        self._retries = {path: self._retries.get(path, _Retry()) for path in waiting}
        due = [path for path, retry in self._retries.items() if retry.due <= now]
        if not due or self._server_retry.due > now:
            return
        with self._outbox.locked(), _session(server) as session:
            for path in due:
                if self._stopping:
                    return
                self._deliver(session, path)
        self._server_retry = _Retry()

    def _keep(self, path: Path, message: EmailMessage, fault: str, ending: str) -> None:
        """Keep a mail that is not sent any more, for the operator to read."""
        kept = path.with_suffix(ending)
        _log.error(
            "the mail to %s %s; it is kept in the outbox as %s", message["To"], fault, kept.name
        )
        path.rename(kept)

    def _deliver(self, session: smtplib.SMTP, path: Path) -> None:
        try:
            message = message_from_bytes(path.read_bytes(), policy=_UNBROKEN)
        except FileNotFoundError:  # another bridge has sent it
            del self._retries[path]
            return
        if _is_expired(message, self._clock()):
            self._keep(path, message, "was not sent in time", ".expired")
        elif (refusal := _send(session, message)) is None:
            _log.info("the mail to %s was sent", message["To"])
            path.unlink()
        elif refusal.startswith("5"):
            self._keep(path, message, f"was refused: {refusal}", ".refused")
        else:
            self._retries[path].failed()
            pause = round(self._retries[path].pause)
            _log.warning("the mail to %s is tried again in %d s: %s", message["To"], pause, refusal)
            return
        del self._retries[path]


def parse_url(url: str, password: str | None) -> _Server:
    """Return the mail server at *url*, an SMTP URL; *password* counts before one in it."""
    with suppress(ValueError):  # its text may contain a part of the password
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname and parts.port != 0:
            return _Server(
                encrypted=parts.scheme == "smtps",
                host=parts.hostname,
                port=parts.port or _PORTS[parts.scheme],
                user=unquote(parts.username or ""),
                password=password or unquote(parts.password or ""),
            )
    raise ValueError("an SMTP URL is smtp:// or smtps://, then [USER[:PASSWORD]@]HOST[:PORT]")


@contextmanager
def _session(server: _Server) -> Iterator[smtplib.SMTP]:
    """Connect to *server*; raise OSError or SMTPException if it cannot be used."""
    tls = ssl.create_default_context()
    if server.encrypted:
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=SMTP_SECONDS, context=tls
        )
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=SMTP_SECONDS)
    try:
        smtp.ehlo_or_helo_if_needed()
        if not server.encrypted and server.user:
            # A password is never sent unencrypted: this raises if the server offers no TLS.
            smtp.starttls(context=tls)
        elif not server.encrypted and smtp.has_extn("starttls"):
            # Without TLS the mail would be sent all the same, so no certificate is asked for;
            # that of a mail server on the same machine is seldom good.
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            smtp.starttls(context=tls)
        if server.user:
            smtp.login(server.user, server.password)
        yield smtp
        with suppress(*_SERVER_FAILED):  # what was sent is sent
            smtp.quit()
    finally:
        smtp.close()


def _send(session: smtplib.SMTP, message: EmailMessage) -> str | None:
    """Send *message*; return None, or the code with which the server refuses this one mail."""
    try:
        session.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        return _code(*next(iter(error.recipients.values())))
    except smtplib.SMTPDataError as error:
        return _code(error.smtp_code, error.smtp_error)
    return None


def _reason(error: Exception) -> str:
    """Return what went wrong, without the text of the server, which may repeat what it was sent."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {_code(error.smtp_code, error.smtp_error)}"
    return str(error)


def _code(code: int, text: bytes | str) -> str:
    """Return the code of an answer, with the enhanced one (RFC 3463) at the beginning of *text*."""
    words = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    enhanced = re.match(r"\d\.\d{1,3}\.\d{1,3}\b", words)
    return f"{code} {enhanced[0]}" if enhanced else str(code)


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds), timezone.utc))


def _is_expired(message: EmailMessage, seconds: float) -> bool:
    try:
        return parsedate_to_datetime(message["Expires"]).timestamp() < seconds
    except (TypeError, ValueError):  # damaged, or older than this field and not meant to be sent
        return True
