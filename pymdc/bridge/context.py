"""What every route works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from pymdc.bridge.housekeeping import Housekeeper
from pymdc.bridge.load import Load
from pymdc.bridge.mail import Mailer
from pymdc.bridge.metrics import Metrics
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.serving.threads import Threads
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.group_commit import Commits
from pymdc.bridge.storage.nonces import NonceRule
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.usage import Limits


@dataclass(frozen=True)
class Context:
    """The parts of one running bridge. *clock* gives seconds, *shard_size* is in bytes."""

    endpoint: str
    database: Database
    objects: ObjectStore
    commits: Commits
    mailer: Mailer
    passwords: Passwords
    nonce_rule: NonceRule
    threads: Threads
    load: Load
    housekeeper: Housekeeper
    metrics: Metrics
    limits: Limits
    registration: str
    shard_size: int
    clock: Callable[[], float]

    def now(self) -> int:
        """Return the milliseconds since 1970."""
        return int(self.clock() * 1000)


def iso_time(milliseconds: int) -> str:
    """Return a time as the API writes it, ``2026-11-22T07:54:51.978Z``."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
