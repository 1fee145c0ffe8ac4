"""The activation message: sent by SMTP, or written to an outbox."""

from __future__ import annotations

import logging
import os
import secrets
import smtplib
import ssl
from contextlib import suppress
from email import policy
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pymdc.bridge.settings import SMTP_SECONDS, Announce

_PORTS = {"smtp": 25, "smtps": 465}
_TEXT = "This address was registered with a Metadisk bridge. To activate the account, open\n\n{}\n"
_UNBROKEN = policy.SMTP.clone(max_line_length=998)  # else a link is cut after 78 characters
_log = logging.getLogger("pymdc.bridge")


class Mailer:
    """Sends activation messages through the server at *smtp*, a URL.

    Without *smtp*, messages are written to the folder *outbox*, and *announce* is called with
    the address and the link.
    """

    def __init__(self, outbox: Path, smtp: str | None, announce: Announce | None) -> None:
        self._outbox = outbox
        self._server = None if smtp is None else _parse_url(smtp)
        self._announce = announce

    def send_activation(self, email: str, link: str) -> None:
        """Send *link* to *email*.

        If that fails, the error is logged and the user stays registered;
        `Bridge.activation_key` still returns the token.
        """
        message = EmailMessage(_UNBROKEN)
        message["Subject"] = "Activate your Metadisk account"
        message["From"] = "metadisk@localhost" if self._server is None else _sender(self._server)
        message["To"] = email
        message.set_content(_TEXT.format(link))
        try:
            if self._server is not None:
                _send(self._server, message)
                return
            self._write_to_outbox(message)
            if self._announce is not None:
                self._announce(email, link)
        except Exception:  # noqa: BLE001  # also one of *announce*
            _log.exception("the activation link for %s was not delivered", email)

    def _write_to_outbox(self, message: EmailMessage) -> None:
        self._outbox.mkdir(mode=0o700, exist_ok=True)
        path = self._outbox / f"{secrets.token_hex(12)}.eml"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes(message))


def _parse_url(url: str) -> SplitResult:
    with suppress(ValueError):  # its text may contain a part of the password
        server = urlsplit(url)
        if server.scheme in _PORTS and server.hostname and server.port != 0:
            return server
    raise ValueError("an SMTP URL is smtp:// or smtps://, then [USER:PASSWORD@]HOST[:PORT]")


def _sender(server: SplitResult) -> str:
    user = unquote(server.username or "")
    return user if "@" in user else f"metadisk@{server.hostname}"


def _send(server: SplitResult, message: EmailMessage) -> None:
    kind = smtplib.SMTP_SSL if server.scheme == "smtps" else smtplib.SMTP
    user, password = unquote(server.username or ""), unquote(server.password or "")
    with kind(
        server.hostname or "", server.port or _PORTS[server.scheme], timeout=SMTP_SECONDS
    ) as smtp:
        smtp.ehlo_or_helo_if_needed()
        # A password is never sent unencrypted: this raises if the server offers no TLS.
        if server.scheme == "smtp" and (user or smtp.has_extn("starttls")):
            smtp.starttls(context=ssl.create_default_context())
        if user:
            smtp.login(user, password)
        smtp.send_message(message)
