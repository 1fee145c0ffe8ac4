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
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")

# Requests
MAX_HEAD = 64 * 1024  # bytes; a head may be longer if its last read completes it
MAX_HEADERS = 100  # fields of a head; browsers and proxies send about 30
PARSED_AT_ONCE = 4096  # bytes of requests; whole requests wait there, in 20 times as much memory
PARSED_IN_TURN = 4 * PARSED_AT_ONCE  # bytes of heads and chunks, before others have their turn
FREE_CHUNKS = 1000  # of a body; to parse one takes long
MIN_CHUNK = 32  # bytes of the others on the average
MAX_PARAMETERS = 100  # of a query
MAX_BODY = 64 * 1024  # bytes, for a list of almost 500 public keys; a file may be larger
MAX_FILE = 2**40  # bytes; the rows of its shards take a second to write, in which others wait
MAX_NUMBER = 400  # characters; the largest number without an exponent has 309 digits
MAX_NAME = 1024  # characters of the name of a bucket or of a file, as of an object in S3
MAX_PARTS = 100  # of a form; each takes long to parse, even if it is empty
MAX_KIND = 255  # characters of a MIME type, twice 127 and a slash, as RFC 6838 says
MAX_REDIRECT = 2048  # characters of the address to which an activation redirects
MAX_CACHED_KEYS = 1024  # public keys whose point is remembered: to parse one takes long
MAX_SIGNATURE = 160  # hexadecimal digits; the longest DER of a signature has 144
DRAIN_SECONDS = 60.0  # for the rest of a body after an early answer
EXPECT_SECONDS = 1.0  # the same, if the client has not been told to send it
KEEP_ALIVE_SECONDS = 75  # for a connection between two requests
IDLE_CHECKS = 4  # how often a connection is checked within the patience
MIN_BODY_RATE = 100  # bytes a second; a client that sends its body more slowly stalls
MAX_CONNECTIONS = 10_000
DESCRIPTORS_KEPT = 128  # of the limit on open files, for files and for connections being accepted
ACCEPTED_AT_ONCE = 16  # connections, before the bridge looks whether there are too many
ROOM_SECONDS = 5.0  # a request that sends nothing for so long may have to make room for another
BACKLOG = 2048  # connections that wait to be accepted

# TLS
HANDSHAKE_SECONDS = 10.0
MAX_HANDSHAKES = 64  # at the same time; then the oldest is given up
ACCEPT_PAUSE = 1.0  # seconds, when no descriptor is free for another connection
CLOSE_SECONDS = 1.0  # for the farewell of a client when the bridge stops

# Stopping
CLEANUP_SECONDS = 1.0  # for requests that were ended, to delete what they stored
STOP_RESERVE = 2.0  # seconds after the grace; then the program ends, whatever still hangs

# Log, probes and metrics
MAX_LOGGED = 500  # characters of a path, a name or a message
MAX_UNREAD = MiB  # characters of lines that wait until somebody reads the log; others are lost
LAST_LINES_SECONDS = 1.0  # for them, at the end
PROBE_SECONDS = 5.0  # for the answer of the database and of the store
MAX_PROBE_CONNECTIONS = 32  # on the port of the metrics
HISTOGRAM = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

# Channels
MAX_CHANNEL_MESSAGE = 64 * 1024  # bytes that a client may send
FRAMES_IN_TURN = 1024  # bytes of them; each frame takes long to parse, even if it is empty
MAX_FRAMES = 1000  # that a client may send: one message, and some pings
FIRST_MESSAGE_SECONDS = 10.0
MANY_CHANNELS = 64  # that send; then each holds one frame in memory, and not eight
CHANNEL_PATIENCE_FACTOR = 5  # a client may read other shards before this one

# Accounts
MAX_ADDRESS = 254  # characters of an e-mail address, as RFC 5321 says
TOKEN_LIFETIME = 300_000  # milliseconds; for the tokens of pointers too
NONCE_WINDOW = 10_000  # uses of nonces that are remembered for each user and key
MAX_PASSWORD_HASHES = 4  # at the same time; each takes 16 MiB
MAX_OWN_HASHES = 2  # of those, for one account or, without one, for one address
FREE_FAILURES = {"account": 5, "address": 20}  # wrong passwords before the next has to wait
FREE_REGISTRATIONS = {"address": 100}  # a class behind one address registers at the same time
LONGEST_DELAY = 60.0  # seconds, after wrong passwords or registrations
FORGOTTEN = 900.0  # seconds after which the one before is forgotten
MAX_BUCKETS = 1000  # of a user
MAX_LISTED_KEYS = MiB  # characters in which the buckets of a user list keys: more than 7,000
MAX_KEYS = 1000  # of a user
MAX_REMEMBERED_TRIES = 10_000  # accounts and addresses
REGISTRATION_LIFETIME = 30 * 86_400_000  # milliseconds for its activation; then it is deleted
RESET_LIFETIME = 3_600_000  # milliseconds, for a token with which a new password is set
MAIL_PAUSE = 60_000  # milliseconds between two mails to one address

# Mails
SMTP_SECONDS = 10.0  # for each answer of the mail server
FIRST_RETRY = 30.0  # seconds after a mail that was not sent; then twice as long each time
LAST_RETRY = 900.0  # seconds; so a mail is sent soon after the mail server works again
MAIL_LIFETIME = 432_000_000  # milliseconds, five days (RFC 5321, 4.5.4.1), for a mail not sent
MAIL_STOP_SECONDS = 1.0  # for the mail that is being sent when the bridge stops

# Load
MAX_UPLOADS = 16  # at the same time; each holds two shards of 8 MiB in memory
MIN_UPLOAD_RATE = 10_000  # bytes a second; slower uploads give way if others wait
PACE_SECONDS = 10.0  # in which that is measured
MAX_REMOVALS = 2  # at the same time; the others wait as long as it takes
REMOVED_AT_ONCE = 100  # files of a bucket; then it is the turn of other requests
MAX_LISTS = 4  # of which a page is read at the same time
MAX_WAITING = 64  # requests of a kind that wait for their turn; the others get 503
WAIT_SECONDS = 30  # for that turn
PAGE = 250  # files that a list reads at a time; others come in between
BUSY_SECONDS = 60  # that a transaction waits while another process, such as vacuum, is writing
BUCKETS_PAGE = 20  # buckets that a list reads at a time; they may be as large as many files
RESERVE = 16 * MiB  # bytes on the disk for transactions when it is full; half of them for removals

# Threads
MAX_IDLE_THREADS = 16
MAX_THREADS = 64  # for three of each upload, for passwords, removals, and shards that are read


class WrongSetting(ValueError):
    """The setting *name* has a wrong *value*."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name} is {value!r}; expected {expected}")
        self.name, self.expected = name, expected


@dataclass(frozen=True, repr=False)  # the SMTP URL holds a password
class Settings:
    """The settings of one bridge, as `Bridge` describes them; ValueError for a wrong one."""

    data: str | os.PathLike[str] | None = None
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
    grace: float = 6
    patience: float = 60
    clock: Callable[[], float] = time.time
    announce: Announce | None = None

    def __post_init__(self) -> None:
        for name, values in ("nonce_rule", NONCE_RULES), ("registration", REGISTRATIONS):
            self._check(name, getattr(self, name) in values, f"one of {', '.join(values)}")
        for name in ("storage_limit", "user_limit", "min_free", "grace", "patience"):
            value = getattr(self, name)
            self._check(name, value is None or 0 <= value < math.inf, "zero or more")
        for name in ("port", "metrics_port"):
            port = getattr(self, name)
            is_port = type(port) is int and 0 <= port <= 65535
            self._check(name, is_port or (port is None and name != "port"), "0 to 65535")
        self._check("host", self.host, "an address, such as 127.0.0.1")
        self._check("shard_size", self.shard_size >= 1, "bytes, one or more")
        both = "both a certificate and its key, or neither"
        for name, other in ("tls_cert", self.tls_key), ("tls_key", self.tls_cert):
            self._check(name, (getattr(self, name) is None) == (other is None), both)
        is_sender = self.mail_from is None or ADDRESS.fullmatch(self.mail_from)
        self._check("mail_from", is_sender, "an address, such as bridge@example.com")
        self._check("url", self.url is None or _is_origin(self.url), "http[s]://HOST[:PORT]")
        for proxy in self.trusted_proxies:
            expected = "addresses or networks, such as 10.0.0.1 or 10.0.0.0/8"
            self._check("trusted_proxies", _is_network(proxy), expected)

    def _check(self, name: str, right: object, expected: str) -> None:
        if not right:
            raise WrongSetting(name, getattr(self, name), expected)


def _is_origin(url: str) -> bool:
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
