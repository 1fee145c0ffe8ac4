"""What can be set: the settings of a bridge, the options of the program, and the limits."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

MiB = 1024 * 1024

Announce = Callable[[str, str], object]
NONCE_RULES = ("once", "2016")
REGISTRATIONS = ("open", "closed", "invite")
DATABASE_URL = "postgresql+psycopg://[USER@]HOST[:PORT]/NAME"
STORES = ("s3", "gs", "az")
STORE_URL = "s3://BUCKET[/PREFIX] or file:///PATH, without keys"
_STORE_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")

# Names in the data folder
DATABASE = "metadata.sqlite"
SHARDS = "shards"
OUTBOX = "outbox"
SET_ASIDE = "set-aside"
LOCK = "serving"
BACKUP_LOCK = "backup.lock"

# Requests
MAX_HEAD = 64 * 1024  # bytes; a head may be longer if its last read completes it
MAX_HEADERS = 100  # fields of a head; browsers and proxies send about 30
PARSED_AT_ONCE = 4096  # bytes of requests; whole requests wait there, in 20 times as much memory
PARSED_IN_TURN = 4 * PARSED_AT_ONCE  # bytes of heads and chunks, before others have their turn
FREE_CHUNKS = 1000  # of a body, of any size; to parse one takes long
MIN_CHUNK = 32  # bytes of the others on the average; clients send thousands
MAX_PARAMETERS = 100  # of a query; no request has more than five
LIMIT_DIGITS = 18  # of the limit of a list; the largest number of the database has 19
MAX_BODY = 64 * 1024  # bytes, for a list of almost 500 public keys; a file may be larger
MAX_FILE = 2**40  # bytes; the rows of its shards take a second to write, in which others wait
MAX_NUMBER = 400  # characters; the largest number without an exponent has 309 digits
MAX_NAME = 1024  # characters of the name of a bucket or of a file, as of an object in S3
MAX_PARTS = 100  # of a form; each takes long to parse, even if it is empty
MAX_KIND = 255  # characters of a MIME type, twice 127 and a slash, as RFC 6838 says
MAX_REDIRECT = 2048  # characters of the address after an activation; browsers take so many
MAX_CACHED_KEYS = 1024  # public keys whose point is remembered: to parse one takes long
MAX_KEY = 130  # hexadecimal digits, of a key that is not compressed
MAX_SIGNATURE = 160  # hexadecimal digits; the longest DER of a signature has 144
DRAIN_SECONDS = 60.0  # for the rest of a body after an early answer, as long as the patience
EXPECT_SECONDS = 1.0  # the same, if the client has not been told to send it
KEEP_ALIVE_SECONDS = 75  # for a connection between two requests; nginx ends its own after 60
IDLE_CHECKS = 4  # of a connection within the patience; more cost more and gain little
MIN_BODY_RATE = 100  # bytes a second; a client that sends its body more slowly stalls
MAX_CONNECTIONS = 10_000  # idle, each takes about 10 KB of memory
DESCRIPTORS_KEPT = 128  # of the limit on open files, for files and for connections being accepted
ACCEPTED_AT_ONCE = 16  # connections, before the bridge looks whether there are too many
ROOM_SECONDS = 5.0  # a request that sends nothing for so long may have to make room for another
ROOM_SHARE = 100  # one of so many connections makes room at a time: to choose them takes long
BACKLOG = 2048  # connections that wait to be accepted, as many as uvicorn lets
TICK_SECONDS = 1.0  # of the header Date

# TLS
HANDSHAKE_SECONDS = 10.0  # it takes two round trips
MAX_HANDSHAKES = 64  # at the same time; then the oldest, which stalls, is given up
ACCEPT_PAUSE = 1.0  # seconds, when no descriptor is free for another connection
CLOSE_SECONDS = 1.0  # for the farewell of a client when the bridge stops

# Stopping
NEW_SECONDS = 2.0  # for a request, or the message of a channel, that may be on its way
ARRIVAL_SECONDS = 0.01  # for connections that were begun before the port is closed
SETTLE_SECONDS = 0.05  # for requests whose connection was ended, to see that
CLEANUP_SECONDS = 1.0  # for requests that were ended, to delete what they stored
STOP_RESERVE = 2.0  # seconds after the grace; then the program ends, whatever still hangs
TELL_SECONDS = 0.5  # for that line of the log: whoever reads the log may hang too

# Log, probes and metrics
MAX_LOGGED = 500  # characters of a path, a name or a message; lines stay readable
LOG_SECONDS = 0.01  # that lines wait for others: a write takes longer than making a line
MAX_UNREAD = MiB  # characters of lines that wait until somebody reads the log; others are lost
LAST_LINES_SECONDS = 1.0  # for them, at the end
PROBE_SECONDS = 5.0  # for the database and the store, which take milliseconds
MAX_PROBE_CONNECTIONS = 32  # on the port of the metrics, for which one program asks
HISTOGRAM = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

# Contents of files, by HTTP
MAX_SENT_NAME = 255  # bytes of the file name in a header; most file systems take no longer one

# Channels
MAX_CHANNEL_MESSAGE = 64 * 1024  # bytes that a client may send, as of a body
FRAMES_IN_TURN = 1024  # bytes of them; each frame takes long to parse, even if it is empty
MAX_FRAMES = 1000  # that a client may send: one message, and some pings
FIRST_MESSAGE_SECONDS = 10.0  # a client sends it at once
FRAME = 64 * 1024  # bytes, the most that the protocol allows
FRAMES_AT_ONCE = 8  # of a shard, that a channel holds in memory
MANY_SENDING = 64  # channels and downloads that send; then each holds one frame in memory
CHANNEL_PATIENCE_FACTOR = 5  # a client may read other shards before this one

# Accounts
MAX_ADDRESS = 254  # characters of an e-mail address, as RFC 5321 says
TOKEN_LIFETIME = 300_000  # milliseconds, as in 2016; for the tokens of pointers too
NONCE_WINDOW = 10_000  # uses of nonces that are remembered for each user and key: 1 MB
PASSWORD_COST = {"n": 2**14, "r": 8, "p": 1}  # of scrypt; 50 ms
MAX_PASSWORD_HASHES = 4  # at the same time; each takes 16 MiB, and a processor for 50 ms
MAX_OWN_HASHES = 2  # of those, for one account or, without one, for one address
FREE_FAILURES = {"account": 5, "address": 20}  # wrong passwords before the next has to wait
FREE_REGISTRATIONS = {"address": 100}  # a class behind one address registers at the same time
LONGEST_DELAY = 60.0  # seconds, after wrong passwords or registrations; nobody is locked out
FORGOTTEN = 900.0  # seconds after which the one before is forgotten
MAX_BUCKETS = 1000  # of a user; the lists of their keys are limited too
MAX_LISTED_KEYS = MiB  # characters in which the buckets of a user list keys: more than 7,000
MAX_KEYS = 1000  # of a user; they are listed in one go
MAX_REMEMBERED_TRIES = 10_000  # accounts and addresses, in 5 MB of memory
REGISTRATION_LIFETIME = 30 * 86_400_000  # milliseconds for its activation; then it is deleted
RESET_LIFETIME = 3_600_000  # milliseconds, for a token with which a new password is set
MAIL_PAUSE = 60_000  # milliseconds between two mails to one address, which anybody may ask for

# Mails
SMTP_SECONDS = 10.0  # for each answer of the mail server; the other mails wait meanwhile
FIRST_RETRY = 30.0  # seconds after a mail that was not sent; then twice as long each time
LAST_RETRY = 900.0  # seconds; so a mail is sent soon after the mail server works again
MAIL_LIFETIME = 432_000_000  # milliseconds, five days (RFC 5321, 4.5.4.1), for a mail not sent
MAIL_STOP_SECONDS = 1.0  # for the mail that is being sent when the bridge stops

# Load
MAX_UPLOADS = 16  # at the same time; each holds two or, for STORE_PUTS, three shards of 8 MiB
UPLOAD_LIFETIME = 43_200_000  # milliseconds, half of `ORPHAN_AGE`; then nobody may need its shards
MIN_UPLOAD_RATE = 10_000  # bytes a second; slower uploads give way if others wait
PACE_SECONDS = 10.0  # in which that is measured
MAX_REMOVALS = 2  # at the same time; the others wait as long as it takes
REMOVAL_SECONDS = 0.5  # of a bucket, or of an account, before the answer; the rest is done later
REMOVED_AT_ONCE = 100  # files of a bucket; then it is the turn of other requests
MAX_LISTS = 4  # of which a page is read at the same time; the others come in between
MAX_WAITING = 64  # requests of a kind that wait for their turn; more would wait in vain
WAIT_SECONDS = 30  # for that turn; clients give up after 60
PAGE = 250  # files that a list reads at a time; others come in between
BUSY_SECONDS = 60  # that a transaction waits while another process, such as vacuum, is writing
LOCKED_PAUSE = 0.01  # seconds before the next look at a new database that another bridge opens
BATCH = 500  # rows at a time; SQLite lets a statement have 999 parameters
BUCKETS_PAGE = 20  # buckets that a list reads at a time; they may be as large as many files
RESERVE = 16 * MiB  # bytes on the disk for transactions when it is full; half of them for removals

# Housekeeping
FIRST_LOOK_SECONDS = 1.0  # after the start, for removals that were broken off
HOUSEKEEPING_SECONDS = 30.0  # between two looks at what has expired, and at removals to finish
SWEEP_SECONDS = 86_400.0  # between two sweeps for objects that no shard refers to
ORPHAN_AGE = 86_400_000  # milliseconds; a younger one may belong to an upload on its way

# PostgreSQL
CLIENT = "pymdc.bridge"  # the name by which the server knows a bridge
LANES = 2  # transactions of a bridge that write at the same time; more gain nothing on two cores
READERS = 8  # connections that only read; most reads are done by the lanes' threads
CONNECT_SECONDS = 5  # for a connection; in a data center it takes milliseconds
STATEMENT_SECONDS = 30  # for a statement; clients give up after 60
LOCK_SECONDS = 10  # of these for a row that another transaction has changed
HUNG_SECONDS = 60.0  # for a transaction; then the server does not answer
RETRY_SECONDS = 2  # after which a client may ask again if the database or the store does not answer
# An object store behind a network
STORE_CONNECT_SECONDS = 3.0  # a server that is alive accepts in milliseconds
STORE_SECONDS = 15.0  # without a byte of an answer; SeaweedFS makes room in 5 before a first object
STORE_RETRY_SECONDS = 5.0  # in which what failed is tried again; a store restarts in as many
STORE_FIRST_PAUSE = 0.1  # seconds before it is; then longer
STORE_LAST_PAUSE = 1.0
STORE_PUTS = 2  # shards of an upload at a time; more take memory, and the store is busy
STORE_SIZES_AT_ONCE = 8  # objects whose sizes are asked for; each takes a round trip

# Threads
MAX_IDLE_THREADS = 16  # to start one takes longer than most functions
MAX_THREADS = 64  # for three of each upload, for passwords, removals, and shards that are read

# Commands of an operator
BACKUP_ROUNDS = 10  # at most, in which new objects are copied without the lock
BACKUP_FEW = 50  # objects that may be left for the last round, with the lock: others wait
BACKUP_SMALL = 16 * MiB  # bytes of them
EXPORT_ROUNDS = 10  # at most, in which an object is deleted before it is copied
ROWS_AT_ONCE = 2000  # that are copied from one database to another by a statement
SHOWN_ROWS = 5  # that an error names
COPIED_AT_ONCE = 16  # objects, by a backup; each takes a block of memory
OBJECT_BLOCK = MiB  # of an object that is copied or checked
VERIFY_PAUSE = 1.0  # seconds in which the bridge deletes the objects of a file that it removed
VACUUM_TRIES = 50  # at emptying the log, which another process may be about to do
VACUUM_PAUSE = 0.1  # seconds between two of them
SHOWN_FAULTS = 50  # objects in the text of `verify`; JSON has all


class WrongSetting(ValueError):
    """The setting *name* has a wrong *value*."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name} is {value!r}; expected {expected}")
        self.name, self.expected = name, expected


@dataclass(frozen=True, repr=False)  # two URLs may hold a password
class Settings:
    """The settings of one bridge, as `Bridge` describes them; ValueError for a wrong one."""

    data: str | os.PathLike[str] | None = None
    database: str | None = None
    database_password: str | None = None
    store: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    url: str | None = None
    smtp: str | None = None
    smtp_password: str | None = None
    mail_from: str | None = None
    registration: str = "open"
    trusted_proxies: tuple[str, ...] = ()
    tls_cert: str | os.PathLike[str] | None = None
    tls_key: str | os.PathLike[str] | None = None
    metrics_port: int | None = None
    metrics_token: str | None = None
    nonce_rule: str = "once"
    shard_size: int = 8 * MiB
    fsync: bool = False
    min_free: int = 64 * MiB
    storage_limit: float | None = None
    user_limit: float | None = None
    drain: float = 0
    grace: float = 6
    patience: float = 60
    password_cost: int | None = None
    clock: Callable[[], float] = time.time
    announce: Announce | None = None

    def __post_init__(self) -> None:
        for name, values in ("nonce_rule", NONCE_RULES), ("registration", REGISTRATIONS):
            self._check(name, getattr(self, name) in values, f"one of {', '.join(values)}")
        for name in ("storage_limit", "user_limit", "min_free", "drain", "grace", "patience"):
            value = getattr(self, name)
            self._check(name, value is None or 0 <= value < math.inf, "zero or more")
        for name in ("port", "metrics_port"):
            port = getattr(self, name)
            is_port = type(port) is int and 0 <= port <= 65535
            self._check(name, is_port or (port is None and name != "port"), "0 to 65535")
        if self.database is not None and not _is_database(self.database):
            raise WrongSetting("database", "...", DATABASE_URL)  # it may hold a password
        if self.store is not None and not _is_store(self.store):
            raise WrongSetting("store", "...", STORE_URL)  # likewise
        self._check("host", self.host, "an address, such as 127.0.0.1")
        cost = self.password_cost
        is_cost = cost is None or (cost > 1 and cost & (cost - 1) == 0)
        self._check("password_cost", is_cost, "a power of two, 2 or more")
        self._check("shard_size", self.shard_size >= 1, "bytes, one or more")
        both = "both a certificate and its key, or neither"
        for name, other in ("tls_cert", self.tls_key), ("tls_key", self.tls_cert):
            self._check(name, (getattr(self, name) is None) == (other is None), both)
        is_sender = self.mail_from is None or ADDRESS.fullmatch(self.mail_from)
        self._check("mail_from", is_sender, "an address, such as bridge@example.com")
        self._check("url", self.url is None or is_origin(self.url), "http[s]://HOST[:PORT]")
        for proxy in self.trusted_proxies:
            expected = "addresses or networks, such as 10.0.0.1 or 10.0.0.0/8"
            self._check("trusted_proxies", _is_network(proxy), expected)

    def _check(self, name: str, right: object, expected: str) -> None:
        if not right:
            raise WrongSetting(name, getattr(self, name), expected)


def _is_store(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if re.search(r"[@?#\s]", url):
        return False
    if scheme == "file":
        return place in ("", "localhost") and bool(path.strip("/"))
    return scheme in STORES and bool(place and _STORE_PATH.fullmatch(slash + path))


def _is_database(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = parts.path.strip("/") and parts.port != 0 and parts.netloc.count("@") < 2
    except ValueError:
        return False
    return parts.scheme == "postgresql+psycopg" and bool(named) and not parts.fragment


def is_origin(url: str) -> bool:
    """Say whether *url* has a scheme and a host, perhaps a port, and nothing else."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    more = "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
    return bool(usable) and not more


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
