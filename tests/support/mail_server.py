"""A mail server that refuses, hangs or asks for TLS if a test wants it to."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from queue import SimpleQueue

from servers import RawServer

OK = b"250 ok"
GO_ON = b"354 go on"


class MailServer(RawServer):
    """Takes mails on a free port, or on *port*.

    ``replies`` hold, for the beginning of a command, the replies to give instead of the usual
    one, in order; the last one is given again and again. "greeting" and "<mail>" stand for the
    greeting and for the reply to a mail itself.
    With *tls*, the server offers STARTTLS or, if *encrypted*, speaks TLS from the beginning.
    ``commands`` are those received, each with the word "TLS" before it if it was encrypted;
    ``mails`` are the mails accepted.
    """

    def __init__(
        self, *, port: int = 0, tls: ssl.SSLContext | None = None, encrypted: bool = False
    ) -> None:
        self.replies: dict[bytes, list[bytes]] = {}
        self.commands: list[str] = []
        self.mails = SimpleQueue[bytes]()
        self._tls = tls
        self._encrypted = encrypted
        super().__init__(self._take, port)
        scheme, host = "smtps" if encrypted else "smtp", "localhost" if tls else "127.0.0.1"
        self.url = f"{scheme}://{host}:{self.port}"

    def __enter__(self) -> MailServer:
        return self

    def _take(self, connection: socket.socket) -> None:
        begun = False
        if not self._encrypted:
            begun = self._greet(connection) and self._converse(connection)
        if self._tls and (begun or self._encrypted):
            with self._tls.wrap_socket(connection, server_side=True) as secure:
                if begun or self._greet(secure):
                    self._converse(secure)

    def _greet(self, connection: socket.socket) -> bool:
        connection.sendall(self._reply(b"greeting", b"220 me") + b"\r\n")
        return True

    def _converse(self, connection: socket.socket) -> bool:
        """Answer commands; return whether TLS is to begin now."""
        encrypted = isinstance(connection, ssl.SSLSocket)
        with connection.makefile("rb") as lines:
            for line in lines:
                self.commands.append(f"{'TLS ' if encrypted else ''}{line.decode().strip()}")
                reply = self._reply(line, self._usual(line, encrypted))
                connection.sendall(reply + b"\r\n")
                if line.upper().startswith(b"STARTTLS"):
                    return True
                if reply == GO_ON:
                    self._take_mail(connection, lines)
        return False

    def _take_mail(self, connection: socket.socket, lines: Iterable[bytes]) -> None:
        mail = b"".join(iter(iter(lines).__next__, b".\r\n"))
        reply = self._reply(b"<mail>", OK)
        if reply == OK:
            self.mails.put(mail)
        connection.sendall(reply + b"\r\n")

    def _usual(self, line: bytes, encrypted: bool) -> bytes:
        command = line[:4].upper()
        if command == b"EHLO":
            offer = b"250-STARTTLS\r\n" if self._tls and not encrypted else b""
            return b"250-me\r\n" + offer + b"250 AUTH PLAIN"
        usual = {b"DATA": GO_ON, b"QUIT": b"221 bye", b"AUTH": b"235 ok", b"STAR": b"220 go on"}
        return usual.get(command, OK)

    def _reply(self, line: bytes, usual: bytes) -> bytes:
        for begin, replies in self.replies.items():
            if line.upper().startswith(begin.upper()):
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return usual
