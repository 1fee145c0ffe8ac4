"""TLS: the certificate, and connections that begin with a handshake."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pymdc.bridge.settings import ACCEPT_PAUSE, HANDSHAKE_SECONDS, MAX_HANDSHAKES

_log = logging.getLogger("pymdc.bridge")


class Certificate:
    """The certificate and the key in two files, with which connections are accepted."""

    def __init__(self, certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        self._files = Path(certificate), Path(key)
        self.context = self._load()

    def reload(self) -> bool:
        """Read the files again; if they can't be used, log that, keep the old ones, return False.

        Connections that are open keep the certificate that they began with.
        """
        try:
            self.context = self._load()
        except OSError as error:
            _log.error("%s; the old certificate stays in use", error)
            return False
        _log.info("the certificate %s was read again", self._files[0])
        return True

    def _load(self) -> ssl.SSLContext:
        """Return a new context; OSError, which names the file, if the files can't be used."""
        certificate, key = self._files
        for path in self._files:
            path.read_bytes()  # else the error names no file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])

        def ask_password() -> NoReturn:  # else it is asked for on the terminal
            raise OSError(f"the key {key} is encrypted; expected one without a password")

        try:
            context.load_cert_chain(certificate, key, ask_password)
        except ssl.SSLError as error:
            reason = error.reason.replace("_", " ").lower() if error.reason else "no PEM"
            raise OSError(
                f"the certificate {certificate} can't be used with the key {key}: {reason}"
            ) from None
        return context


class SecureListener:
    """Accepts connections on *listener*, and gives each one to a new protocol after its handshake.

    asyncio can do that alone, but would not count those that are in their handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        certificate: Certificate,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._listener = listener
        self._certificate = certificate
        self._make_protocol = make_protocol
        self._closed = False
        # The oldest first; with the connection, until the handshake has begun.
        self._handshakes: dict[asyncio.Task[None], socket.socket | None] = {}
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more connections, and give up those in their handshake."""
        self._closed = True
        try:
            # If a connection comes at this moment, asyncio logs an error if its wait is cancelled.
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # not on every system
            self._accepting.cancel()
        for handshake in [*self._handshakes]:
            self._give_up(handshake)

    async def _accept(self) -> None:
        self._listener.setblocking(False)
        with self._listener:
            while not self._closed:
                try:
                    await self._accept_one()
                except OSError as error:
                    if not self._closed:
                        _log.warning("a connection was not accepted: %s", error)
                        await asyncio.sleep(ACCEPT_PAUSE)

    async def _accept_one(self) -> None:
        loop = asyncio.get_running_loop()
        connection, address = await loop.sock_accept(self._listener)
        if self._closed:
            connection.close()
            return
        if len(self._handshakes) >= MAX_HANDSHAKES:
            self._give_up(next(iter(self._handshakes)))
        handshake = loop.create_task(self._shake_hands(connection, address[0]))
        self._handshakes[handshake] = connection
        handshake.add_done_callback(self._forget)
        await asyncio.sleep(0)  # `sock_accept` does not wait if there is a connection

    def _give_up(self, handshake: asyncio.Task[None]) -> None:
        handshake.cancel()
        if connection := self._handshakes.pop(handshake):
            connection.close()

    def _forget(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        if handshake := asyncio.current_task():
            self._handshakes[handshake] = None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._certificate.context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except (OSError, asyncio.TimeoutError) as error:
            reason = str(error) or type(error).__name__
            _log.info("the TLS handshake with %s failed: %s", address, reason)


def close_once(transport: asyncio.Transport) -> None:
    """Let *transport*, if it is for TLS, be closed again without harm.

    From Python 3.11 on, asyncio can't abort it after a second ``close``.
    """
    if transport.get_extra_info("sslcontext") is None:
        return
    close = transport.close

    def close_unless_closing() -> None:
        if not transport.is_closing():
            close()

    transport.close = close_unless_closing  # type: ignore[method-assign]
