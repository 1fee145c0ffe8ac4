"""Mails with links: kept in an outbox until they are sent by SMTP."""

from __future__ import annotations

import logging
import os
import secrets
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pymdc.bridge.settings import FIRST_RETRY, LAST_RETRY, MAIL_STOP_SECONDS, SMTP_SECONDS, Announce

_PORTS = {"smtp": 25, "smtps": 465}
_UNBROKEN = policy.SMTP.clone(max_line_length=998)  # else a link is cut after 78 characters
_SENT_BY_SMTP = (OSError, smtplib.SMTPException)
_log = logging.getLogger("pymdc.bridge")


@dataclass(frozen=True)
class _Server:
    encrypted: bool
    host: str
    port: int
    user: str
    password: str = field(repr=False)

    @property
    def sender(self) -> str:
        return self.user if "@" in self.user else f"metadisk@{self.host}"


class Purpose(NamedTuple):
    """What a link in a mail is for."""

    subject: str
    text: str


ACTIVATION = Purpose(
    "Activate your Metadisk account",
    "This address was registered with a Metadisk bridge. To activate the account, open\n\n{}\n",
)
NEW_PASSWORD = Purpose(
    "A new password for your Metadisk account",
    "Somebody, probably you, asked for a new password. To set it, use this token within an hour:"
    "\n\n{}\n",
)


class Mailer:
    """Sends mails through the server at *smtp*, a URL; what was not sent is tried again.

    Without *smtp*, mails stay in the folder *outbox*, and *announce* is called with the address
    and the link.
    """

    def __init__(
        self, outbox: Path, smtp: str | None, password: str | None, announce: Announce | None
    ) -> None:
        self._outbox = outbox
        self._server = None if smtp is None else parse_url(smtp, password)
        self._announce = announce
        self._wake = threading.Event()
        self._stopping = False

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
        return sum(1 for _ in self._outbox.glob("*.eml"))

    def send(self, purpose: Purpose, email: str, link: str) -> None:
        """Send *link* to *email*; if the mail cannot even be kept, that is logged."""
        message = EmailMessage(_UNBROKEN)
        message["Subject"] = purpose.subject
        message["From"] = "metadisk@localhost" if self._server is None else self._server.sender
        message["To"] = email
        message.set_content(purpose.text.format(link))
        try:
            self._keep(message)
            if self._server is not None:
                self._wake.set()
            elif self._announce is not None:
                self._announce(email, link)
        except Exception:  # noqa: BLE001  # also one of *announce*
            _log.exception("the link for %s was not delivered", email)

    def _keep(self, message: EmailMessage) -> None:
        self._outbox.mkdir(mode=0o700, exist_ok=True)
        name = f"{time.time_ns()}-{secrets.token_hex(12)}"
        part = self._outbox / f"{name}.part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes(message))
        part.rename(part.with_suffix(".eml"))

    def _deliver_until_stopped(self, server: _Server) -> None:
        pause = FIRST_RETRY
        while not self._stopping:
            self._wake.clear()
            if self._deliver_all(server):
                pause = FIRST_RETRY
                self._wake.wait()
            else:
                # New mails do not shorten the pause: they would be sent to the same server.
                self._wait(pause)
                pause = min(2 * pause, LAST_RETRY)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _deliver_all(self, server: _Server) -> bool:
        """Send the mails in the outbox, the oldest first; say whether none is left."""
        for path in sorted(self._outbox.glob("*.eml")):
            if self._stopping:
                return False
            message = message_from_bytes(path.read_bytes(), policy=_UNBROKEN)
            try:
                _send(server, message)
            except smtplib.SMTPRecipientsRefused:
                _log.error("the mail to %s was refused; it is kept as .refused", message["To"])
                path.rename(path.with_suffix(".refused"))
            except _SENT_BY_SMTP as error:
                what = type(error).__name__ if isinstance(error, smtplib.SMTPException) else error
                _log.error(
                    "the mail to %s was not sent, and is tried again: %s", message["To"], what
                )
                return False
            else:
                path.unlink(missing_ok=True)
        return True


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


def _send(server: _Server, message: EmailMessage) -> None:
    kind = smtplib.SMTP_SSL if server.encrypted else smtplib.SMTP
    with kind(server.host, server.port, timeout=SMTP_SECONDS) as smtp:
        smtp.ehlo_or_helo_if_needed()
        # A password is never sent unencrypted: this raises if the server offers no TLS.
        if not server.encrypted and (server.user or smtp.has_extn("starttls")):
            smtp.starttls(context=ssl.create_default_context())
        if server.user:
            smtp.login(server.user, server.password)
        smtp.send_message(message)
