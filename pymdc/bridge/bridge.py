"""The bridge: start and stop."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.context import Context
from pymdc.bridge.errors import UnavailableError
from pymdc.bridge.housekeeping import Housekeeper
from pymdc.bridge.load import Load
from pymdc.bridge.mail import Mailer, Outbox
from pymdc.bridge.metrics import Metrics
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.routes import CONSOLE, ROUTES, Route
from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.probes import Probes
from pymdc.bridge.serving.proxies import Proxies
from pymdc.bridge.serving.threads import Threads
from pymdc.bridge.serving.tls import Certificate
from pymdc.bridge.serving.uvicorn import Server
from pymdc.bridge.settings import DATABASE, OUTBOX, SHARDS, Announce, Settings
from pymdc.bridge.storage.cleanup import FolderLock, delete_half_written_mails, kept_from_backups
from pymdc.bridge.storage.cleanup import clean as clean_store
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.disk import DiskFullError, Reserve, check_owner, sync_path
from pymdc.bridge.storage.group_commit import commits_of
from pymdc.bridge.storage.installation import check_installation
from pymdc.bridge.storage.nonces import RULES
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.schema import MigrationError, OtherSchemaError
from pymdc.bridge.storage.servers import open_postgres
from pymdc.bridge.storage.sqlite import SQLiteDatabase
from pymdc.bridge.storage.stores import open_store
from pymdc.bridge.storage.tables import users
from pymdc.bridge.storage.usage import Limits


class Bridge:
    """A bridge that serves while its ``with`` block runs.

    *data* is the folder in which the bridge stores everything; by default, a temporary folder.
    *database* is the URL of a PostgreSQL database, instead of a file in *data*:
    ``postgresql+psycopg://USER@HOST:PORT/NAME``; *database_password* is its user's password.
    *store* is where the shards are, if not in *data*: ``s3://BUCKET/PREFIX``, with what the
    variables ``AWS_...`` say, or ``file:///PATH``. With both, several bridges can serve the same
    accounts and files, each with a *data* of its own.
    *host* and *port* are the address to listen on; port 0 means any free port.
    *url* is where users reach the bridge, if not at `endpoint`: for mails, and for channels.
    *trusted_proxies* are addresses or networks whose X-Forwarded-* headers count.
    *tls_cert* and *tls_key* are files in PEM; with them, the bridge speaks HTTPS.
    *metrics_port* is a port of its own for the metrics, at `metrics_endpoint`; *metrics_token* is
    a token that a request for them has to contain. Without either, there are no metrics.
    *smtp* is the URL of a mail server, and *mail_from* the sender of the bridge's mails.
    Without *smtp*, mails are written to the folder ``outbox`` in *data*, and *announce* is called
    with the e-mail address and the activation link, or the token for a new password.
    *registration* is "open", "closed", or "invite" if it takes an invitation.
    *nonce_rule* is "once" or "2016". *shard_size* is in bytes. *clock* returns seconds.
    With *fsync*, what was acknowledged outlasts a power cut.
    Uploads are refused when the disk has fewer than *min_free* bytes left.
    *storage_limit* and *user_limit* say how many GB may be stored, by all users together and by
    each; None is without limit.
    *drain* is the time in seconds that the bridge serves on when it is closed, while ``/ready``
    answers 503; *grace* is the time after that for requests and channels in flight.
    *patience* is the time in seconds that a client may stall.
    *password_cost* is n of scrypt, with which passwords are hashed, a power of two; only tests
    should lower it.

    Entering raises OSError if the port is taken, if the folder, the database or the store cannot
    be used, or if the database and the store do not belong together.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = Settings.data,
        *,
        database: str | None = Settings.database,
        database_password: str | None = Settings.database_password,
        store: str | None = Settings.store,
        host: str = Settings.host,
        port: int = Settings.port,
        url: str | None = Settings.url,
        smtp: str | None = Settings.smtp,
        smtp_password: str | None = Settings.smtp_password,
        mail_from: str | None = Settings.mail_from,
        registration: str = Settings.registration,
        trusted_proxies: tuple[str, ...] = Settings.trusted_proxies,
        tls_cert: str | os.PathLike[str] | None = Settings.tls_cert,
        tls_key: str | os.PathLike[str] | None = Settings.tls_key,
        metrics_port: int | None = Settings.metrics_port,
        metrics_token: str | None = Settings.metrics_token,
        nonce_rule: str = Settings.nonce_rule,
        shard_size: int = Settings.shard_size,
        fsync: bool = Settings.fsync,
        min_free: int = Settings.min_free,
        storage_limit: float | None = Settings.storage_limit,
        user_limit: float | None = Settings.user_limit,
        drain: float = Settings.drain,
        grace: float = Settings.grace,
        patience: float = Settings.patience,
        password_cost: int | None = Settings.password_cost,
        clock: Callable[[], float] = Settings.clock,
        announce: Announce | None = Settings.announce,
    ) -> None:
        self._settings = Settings(
            data=data,
            database=database,
            database_password=database_password,
            store=store,
            host=host,
            port=port,
            url=url,
            smtp=smtp,
            smtp_password=smtp_password,
            mail_from=mail_from,
            registration=registration,
            trusted_proxies=trusted_proxies,
            tls_cert=tls_cert,
            tls_key=tls_key,
            metrics_port=metrics_port,
            metrics_token=metrics_token,
            nonce_rule=nonce_rule,
            shard_size=shard_size,
            fsync=fsync,
            min_free=min_free,
            storage_limit=storage_limit,
            user_limit=user_limit,
            drain=drain,
            grace=grace,
            patience=patience,
            password_cost=password_cost,
            clock=clock,
            announce=announce,
        )
        #: The address of the bridge while it serves, such as http://127.0.0.1:6382; '' before.
        self.endpoint = ""
        #: The address of the metrics, or ''.
        self.metrics_endpoint = ""
        self._certificate: Certificate | None = None
        self._closing = threading.Lock()
        self._undo = ExitStack()

    def __enter__(self) -> Bridge:
        settings = self._settings
        with ExitStack() as undo:
            folder = _folder(settings.data, undo)
            undo.enter_context(kept_from_backups(folder))
            if settings.tls_cert is not None and settings.tls_key is not None:
                self._certificate = Certificate(settings.tls_cert, settings.tls_key)
            listener = undo.enter_context(_listen(settings.host, settings.port))
            self.endpoint = _url(settings.host, listener, secure=self._certificate is not None)
            context = self._context(folder, undo)
            self._database = context.database
            self._housekeeper = context.housekeeper
            probes = Probes(context, settings.metrics_token)
            routes: tuple[Route, ...] = ROUTES + CONSOLE + probes.routes
            own_port = None
            if settings.metrics_port is not None:
                port = undo.enter_context(_listen(settings.host, settings.metrics_port))
                self.metrics_endpoint = f"{_url(settings.host, port)}/metrics"
                own_port = App(context, (*probes.routes, probes.metrics_route)), port
            elif settings.metrics_token is not None:
                self.metrics_endpoint = f"{self.endpoint}/metrics"
                routes += (probes.metrics_route,)
            app = self._application(context, routes, Proxies(settings.trusted_proxies))
            server = Server(app, settings.grace, settings.patience, self._certificate, own_port)
            context.metrics.connections = server.connections
            undo.enter_context(server.serving(listener))
            undo.enter_context(context.housekeeper.working())
            undo.callback(context.mailer.stop)
            undo.callback(time.sleep, settings.drain)
            undo.callback(context.load.stop)
            self._undo = undo.pop_all()
        return self

    def _application(self, context: Context, routes: tuple[Route, ...], proxies: Proxies) -> App:
        """Make the application; `pymdc.testing` makes one that can fail."""
        return App(context, routes, proxies, self._settings.url)

    def _context(self, folder: Path, undo: ExitStack) -> Context:
        """Open the database and the store."""
        settings = self._settings
        is_embedded = settings.database is None
        owns_all = is_embedded and settings.store is None
        folder_lock = undo.enter_context(closing(FolderLock(folder)))
        try:
            objects = _open_store(settings, folder)
            database: Database
            if settings.database is None:
                temporary = settings.data is None
                database = _open_sqlite(folder, objects, fsync=settings.fsync, temporary=temporary)
            else:
                database = open_postgres(settings.database, settings.database_password)
            undo.enter_context(closing(database))
            if settings.fsync:  # the names of the folders, and of the files of the database
                sync_path(folder)
            check_installation(database, objects)  # before anything is cleaned up
            if folder_lock.is_alone:
                if owns_all:
                    clean = partial(clean_store, database, objects)
                    Reserve(folder).run(clean, share=1)
                delete_half_written_mails(folder)
                folder_lock.share()
                check_installation(database, objects)  # it may have been closed in between
        except UnavailableError as error:
            raise OSError(str(error)) from None
        load = Load(
            folder,
            objects,
            settings.min_free,
            settings.clock,
            reserve=is_embedded and settings.fsync,
        )
        now = partial(_milliseconds, settings.clock)
        housekeeper = Housekeeper(database, objects, load, now, sweeps=not owns_all)
        mailer = Mailer(Outbox(folder / OUTBOX, fsync=settings.fsync), settings)
        undo.enter_context(mailer.delivering())
        return Context(
            endpoint=(settings.url or self.endpoint).rstrip("/"),
            database=database,
            objects=objects,
            commits=commits_of(database, objects),
            mailer=mailer,
            passwords=Passwords(cost=settings.password_cost),
            nonce_rule=RULES[settings.nonce_rule](),
            threads=undo.enter_context(closing(Threads(database.lanes))),
            load=load,
            housekeeper=housekeeper,
            metrics=Metrics(),
            limits=Limits(settings.storage_limit, settings.user_limit),
            registration=settings.registration,
            shard_size=settings.shard_size,
            clock=settings.clock,
        )

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Serve for *drain* seconds, finish what is in flight within *grace*, and free everything.

        May be called more than once, from any thread except the bridge's own.
        """
        with self._closing:
            self._undo.close()

    def reload_certificate(self) -> bool:
        """Read the certificate and its key again, for connections from now on.

        If they can't be used, that is logged, the old ones stay in use, and False is returned.
        """
        if self._certificate is None:
            raise RuntimeError("the bridge has no certificate; it serves without TLS")
        return self._certificate.reload()

    def activation_key(self, email: str) -> str:
        """Return the activation token of *email*; KeyError if there is none."""
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
    """Return *folder*, for its owner alone, created if missing; OSError if it can't be written."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(folder)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    tempfile.TemporaryFile(dir=folder).close()
    return folder


def _open_store(settings: Settings, folder: Path) -> ObjectStore:
    shards = folder / SHARDS
    if settings.store is None:
        _usable(shards)
    return open_store(settings.store, shards, fsync=settings.fsync)


def _open_sqlite(
    folder: Path, objects: ObjectStore, *, fsync: bool, temporary: bool
) -> SQLiteDatabase:
    """Open the database in *folder*; create one only if there are no *objects*."""
    path = folder / DATABASE
    # With a new database, the cleanup would delete every object.
    if not (path.exists() and path.stat().st_size) and any(objects.names()):
        shards = folder / SHARDS
        is_ours = shards.exists()
        where = f"shards are in {shards}" if is_ours else "shards are in the store"
        raise OSError(
            f"{path} is missing or empty, but {where}:"
            f" bring the database back, or remove {f'the folder {SHARDS}' if is_ours else 'them'}"
        )
    if path.exists() and not os.access(path, os.W_OK):  # else the first write fails
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    path.touch(mode=0o600)  # SQLite gives its other files the same mode
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    open_it = partial(SQLiteDatabase, path, fsync=fsync, temporary=temporary)
    try:
        return Reserve(folder).run(open_it, share=1)
    except (DiskFullError, MigrationError, OtherSchemaError) as error:
        raise OSError(f"{path} can't be used: {error}") from None
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise OSError(f"{path} can't be used as a database") from error


def _milliseconds(clock: Callable[[], float]) -> int:
    return int(clock() * 1000)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio sets it only on sockets that name their protocol. Without it responses are 40 ms late.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(host: str, listener: socket.socket, *, secure: bool = False) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{host}:{listener.getsockname()[1]}"
