"""TLS: the certificate, and connections that begin with a handshake."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

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
        self._handshakes: dict[asyncio.Task[Any], None] = {}  # the oldest first
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more connections, and give up those in their handshake."""
        self._closed = True
        try:
            # On Linux this ends the wait in `sock_accept`. If the wait were cancelled just as a
            # connection comes, asyncio would log an error.
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._accepting.cancel()
            self._listener.close()
        for handshake in self._handshakes:
            handshake.cancel()

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
        if len(self._handshakes) >= MAX_HANDSHAKES:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        handshake = loop.create_task(self._shake_hands(connection, address[0]))
        handshake.add_done_callback(self._forget)
        await asyncio.sleep(0)  # it begins; `sock_accept` does not wait if there is a connection

    def _forget(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        handshake = asyncio.current_task()
        if self._closed or handshake is None:
            connection.close()
            return
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


class SecureTransport:
    """asyncio's *transport* for TLS, which may be closed more than once.

    From Python 3.11 on, asyncio can't abort it after a second ``close``.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close it unless it is closed."""
        if not self._transport.is_closing():
            self._transport.close()

    def free(self) -> None:
        """Let asyncio free what it keeps for a connection that has ended."""
        self._transport.close()  # without this, Python 3.10 warns that it was not closed
