"""The bridge as something to start and to stop."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.context import State
from pymdc.bridge.mail import Mail
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.threads import Offload
from pymdc.bridge.serving.uvicorn import Server
from pymdc.bridge.settings import Announce, Settings
from pymdc.bridge.storage.cleanup import serving
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.nonces import RULES
from pymdc.bridge.storage.objects import Shards
from pymdc.bridge.storage.tables import users


class Bridge:
    """A bridge, which serves from the beginning of its ``with`` block to the end.

    *data* is the folder of what it stores; without one it has a temporary folder.
    *host* and *port* are where it listens; port 0 is any free one.
    *url* is how its users reach it, for the links in mails, where that is not its endpoint.
    *smtp* is the URL of a mail server; without one, activation messages go to the folder
    ``outbox`` in *data*, and *announce* is called with the e-mail address and the link.
    *nonce_rule* is "once" or "2016", *shard_size* is in bytes, *clock* gives seconds,
    *grace* is how many of them there are for what is in flight when the bridge is closed, and
    *patience* for how many a client may stand still.

    Entering raises OSError when the port is taken, the folder can't be used, or its database
    is lost and the shards are not.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = Settings.data,
        *,
        host: str = Settings.host,
        port: int = Settings.port,
        url: str | None = Settings.url,
        smtp: str | None = Settings.smtp,
        nonce_rule: str = Settings.nonce_rule,
        shard_size: int = Settings.shard_size,
        grace: float = Settings.grace,
        patience: float = Settings.patience,
        clock: Callable[[], float] = Settings.clock,
        announce: Announce | None = Settings.announce,
    ) -> None:
        self._settings = Settings(
            data=data,
            host=host,
            port=port,
            url=url,
            smtp=smtp,
            nonce_rule=nonce_rule,
            shard_size=shard_size,
            grace=grace,
            patience=patience,
            clock=clock,
            announce=announce,
        )
        self.endpoint = ""
        self._closing = threading.Lock()
        self._undo = ExitStack()

    def __enter__(self) -> Bridge:
        settings = self._settings
        with ExitStack() as undo:
            folder = _folder(settings.data, undo)
            listener = undo.enter_context(_listen(settings.host, settings.port))
            self.endpoint = _url(settings.host, listener.getsockname()[1])
            shards = Shards(_usable(folder / "shards"))
            self._database = undo.enter_context(closing(_open(folder, shards)))
            undo.enter_context(serving(folder, self._database, shards))
            state = State(
                endpoint=(settings.url or self.endpoint).rstrip("/"),
                database=self._database,
                shards=shards,
                mail=Mail(folder / "outbox", settings.smtp, settings.announce),
                passwords=Passwords(),
                nonces=RULES[settings.nonce_rule](),
                offload=undo.enter_context(closing(Offload())),
                shard_size=settings.shard_size,
                clock=settings.clock,
            )
            server = Server(App(state), settings.grace, settings.patience)
            undo.enter_context(server.on(listener))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more requests, finish those in flight (within the grace), and free everything.

        It may be called more than once, and on any thread but the bridge's own.
        """
        with self._closing:
            self._undo.close()

    def activation_key(self, email: str) -> str:
        """Return the activation token that waits for *email*; KeyError when none does."""
        if not self.endpoint:
            raise RuntimeError("the bridge has not begun to serve; enter it first")
        statement = sa.select(users.c.activation).where(users.c.email == email.lower())
        with self._database.read() as connection:
            activation = connection.execute(statement).scalar()
        if activation is None:
            raise KeyError(f"no activation waits for {email}")
        return str(activation)


def _folder(data: str | os.PathLike[str] | None, undo: ExitStack) -> Path:
    """Return the folder *data*, or a temporary one."""
    if data is None:
        return Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="pymdc-bridge-")))
    return _usable(Path(data))


def _usable(folder: Path) -> Path:
    """Return *folder*, made when missing, which can be written to; OSError if it can't."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return folder


def _open(folder: Path, shards: Shards) -> Database:
    """Open the database in *folder*; a new one is made where there are no *shards* yet."""
    path = folder / "metadata.sqlite"
    # One without a byte is as good as none, and by a new one all shards would be swept.
    if not (path.exists() and path.stat().st_size) and any(shards.names()):
        raise OSError(
            f"{path} is missing or empty, but shards are in {folder / 'shards'}:"
            " bring the database back, or remove the folder shards"
        )
    if path.exists() and not os.access(path, os.W_OK):  # it would be found out by a user
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    try:
        return Database(sa.URL.create("sqlite", database=str(path)))
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise OSError(f"{path} can't be used as a database") from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio does so only where the socket names its protocol; answers would wait for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
