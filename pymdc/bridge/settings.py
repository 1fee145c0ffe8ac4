"""What can be set: the settings of a bridge, the options of the program, and the limits."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

MiB = 1024 * 1024

Announce = Callable[[str, str], object]
NONCE_RULES = ("once", "2016")
REGISTRATIONS = ("open", "closed", "invite")

# Requests
MAX_HEAD = 64 * 1024  # bytes; a head may be longer if its last read completes it
MAX_BODY = 64 * 1024  # bytes, for a list of almost 500 public keys; a file may be larger
MAX_NUMBER = 400  # characters; the largest number without an exponent has 309 digits
MAX_FILE = 2**53 - 1  # bytes; above, a number of JavaScript stands for several sizes
MAX_NAME = 1024  # characters of the name of a bucket or of a file, as of an object in S3
MAX_KIND = 255  # characters of a MIME type, twice 127 and a slash, as RFC 6838 says
MAX_REDIRECT = 2048  # characters of the address to which an activation redirects
MAX_SIGNATURE = 160  # hexadecimal digits; the longest DER of a signature has 144
DRAIN_SECONDS = 60.0  # for the rest of a body after an early answer
KEEP_ALIVE_SECONDS = 75  # for a connection between two requests
IDLE_CHECKS = 4  # how often a connection is checked within the patience
MIN_BODY_RATE = 100  # bytes a second; a client that sends its body more slowly stalls
MAX_CONNECTIONS = 10_000
DESCRIPTORS_KEPT = 128  # of the limit on open files, for files and for connections being accepted
ACCEPTED_AT_ONCE = 16  # connections, before the bridge looks whether there are too many
BACKLOG = 2048  # connections that wait to be accepted

# Channels
MAX_CHANNEL_MESSAGE = 64 * 1024  # bytes that a client may send
FIRST_MESSAGE_SECONDS = 10.0
CHANNEL_PATIENCE_FACTOR = 5  # a client may read other shards before this one

# Accounts
TOKEN_LIFETIME = 300_000  # milliseconds; for the tokens of pointers too
NONCE_WINDOW = 10_000  # uses of nonces that are remembered for each user and key
MAX_PASSWORD_HASHES = 4  # at the same time; each takes 16 MiB
FREE_FAILURES = {"account": 5, "address": 20}  # wrong passwords before the next has to wait
LONGEST_DELAY = 60.0  # seconds, after wrong passwords
FORGOTTEN = 900.0  # seconds after which a wrong password is forgotten
MAX_REMEMBERED_FAILURES = 10_000  # accounts and addresses
RESET_LIFETIME = 3_600_000  # milliseconds; for a token with which a new password is set
MAIL_PAUSE = 60  # seconds between two mails to one address

# Mails
SMTP_SECONDS = 10.0
FIRST_RETRY = 30.0  # seconds after a mail that was not sent; then twice as long each time
LAST_RETRY = 3600.0
MAIL_STOP_SECONDS = 2.0  # for the mail that is being sent when the bridge stops

# Load
MAX_UPLOADS = 16  # at the same time; each holds two shards of 8 MiB in memory
MAX_LISTS = 4  # at the same time
MAX_WAITING = 64  # requests of a kind that wait for their turn; the others get 503
WAIT_SECONDS = 30  # for that turn
PAGE = 250  # files that a list reads at a time; others come in between
RESERVE = 16 * MiB  # bytes on the disk for transactions when it is full; half of them for removals

# Threads
MAX_IDLE_THREADS = 16


@dataclass(frozen=True, repr=False)  # the SMTP URL holds a password
class Settings:
    """The settings of one bridge, as `Bridge` describes them; ValueError for a wrong one."""

    data: str | os.PathLike[str] | None = None
    host: str = "127.0.0.1"
    port: int = 0
    url: str | None = None
    smtp: str | None = None
    smtp_password: str | None = None
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
    grace: float = 8
    patience: float = 60
    clock: Callable[[], float] = time.time
    announce: Announce | None = None

    def __post_init__(self) -> None:
        for name, values in ("nonce_rule", NONCE_RULES), ("registration", REGISTRATIONS):
            if getattr(self, name) not in values:
                expected = ", ".join(values)
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {expected}")
        for name in ("storage_limit", "user_limit", "min_free", "grace", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; expected zero or more")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS takes both a certificate and its key")
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port!r}; expected 0 to 65535")
        if not self.host:
            raise ValueError("host is empty; expected an address, such as 127.0.0.1")
        if self.shard_size < 1:
            raise ValueError(f"shard_size is {self.shard_size}; expected bytes, one or more")
