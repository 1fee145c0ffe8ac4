"""What the routes work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from pymdc.bridge.mail import Mail
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.serving.threads import Offload
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.nonces import Rule
from pymdc.bridge.storage.objects import Shards


@dataclass(frozen=True)
class State:
    """The stores and the rules of one bridge. *clock* gives seconds, *shard_size* is in bytes."""

    endpoint: str
    database: Database
    shards: Shards
    mail: Mail
    passwords: Passwords
    nonces: Rule
    offload: Offload
    shard_size: int
    clock: Callable[[], float]

    def now(self) -> int:
        """Return the milliseconds since 1970."""
        return int(self.clock() * 1000)


def iso(time: int) -> str:
    """Return *time* as the API writes it, ``2026-11-22T07:54:51.978Z``."""
    moment = datetime.fromtimestamp(time / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
