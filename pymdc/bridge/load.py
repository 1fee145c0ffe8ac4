"""What turns too much load into 429, 503 and 507; and the work that may run at once."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from pymdc.bridge.errors import DeadlockError, Refused
from pymdc.bridge.settings import (
    FORGOTTEN,
    FRAME,
    FRAMES_AT_ONCE,
    FREE_FAILURES,
    FREE_REGISTRATIONS,
    LONGEST_DELAY,
    MANY_SENDING,
    MAX_ADDRESS,
    MAX_LISTS,
    MAX_OWN_HASHES,
    MAX_PASSWORD_HASHES,
    MAX_REMEMBERED_TRIES,
    MAX_REMOVALS,
    MAX_UPLOADS,
    MAX_WAITING,
    MIN_UPLOAD_RATE,
    PACE_SECONDS,
    RESERVE,
    WAIT_SECONDS,
)
from pymdc.bridge.storage.disk import DiskFullError, Reserve
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.sqlite import is_locked

T = TypeVar("T")


class Lane:
    """Lets *at_once* requests of a kind run at the same time; the others wait, or get 503.

    At most *most_waiting* wait, for at most *seconds*; None is for ever.
    """

    def __init__(
        self, at_once: int, most_waiting: float = MAX_WAITING, seconds: float | None = WAIT_SECONDS
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._seconds = seconds
        self.running = self.waiting = 0
        self.waits = 0  # how many have waited
        self.waited = 0.0  # seconds, all together

    @property
    def has_room(self) -> bool:
        """Whether a request would not have to wait."""
        return not self._slots.locked()

    async def __aenter__(self) -> None:
        if self._slots.locked():
            await self._wait()
        else:
            await self._slots.acquire()
        self.running += 1

    async def __aexit__(self, *_exception: object) -> None:
        self.running -= 1
        self._slots.release()

    async def _wait(self) -> None:
        if self.waiting >= self._most_waiting:
            raise _busy()
        self.waiting += 1
        self.waits += 1
        begun = time.monotonic()
        try:
            await asyncio.wait_for(self._slots.acquire(), self._seconds)
        except asyncio.TimeoutError:
            raise _busy() from None
        finally:
            self.waiting -= 1
            self.waited += time.monotonic() - begun


class Pace:
    """Lets a client who sends slowly in *lane* give way if others wait there."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._begun = time.monotonic()
        self._size = 0

    def add(self, size: int) -> None:
        """Count *size* bytes; refuse with 503 if there were too few lately and others wait."""
        self._size += size
        seconds = time.monotonic() - self._begun
        if seconds > PACE_SECONDS:
            if self._lane.waiting and self._size < MIN_UPLOAD_RATE * seconds:
                raise _busy()
            self._begun, self._size = self._begun + seconds, 0


class _Tries(NamedTuple):
    number: int
    last: float  # seconds, of the clock


class Throttle:
    """Slows down whoever does something too often.

    Tries count under names; each has a kind, such as "address". *free* says for each kind how many
    tries are free. After each further one the next has to wait twice as long. *refusal* is what is
    told then.
    """

    def __init__(self, clock: Callable[[], float], refusal: str, free: Mapping[str, int]) -> None:
        self._clock = clock
        self._refusal = refusal
        self._free = free
        self._lock = threading.Lock()
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()

    def check(self, **names: str) -> None:
        """Refuse with 429 if the next try has to wait."""
        with self._lock:
            wait = max(self._wait(kind, _name(kind, name)) for kind, name in names.items())
        if wait > 0:
            raise Refused(429, self._refusal, Retry_After=str(math.ceil(wait)))

    def add(self, **names: str) -> None:
        """Count a try."""
        now = self._clock()
        with self._lock:
            for kind, name in names.items():
                key = kind, _name(kind, name)
                number, last = self._tries.pop(key, _Tries(0, now))
                self._tries[key] = _Tries(1 if now - last > FORGOTTEN else number + 1, now)
            while len(self._tries) > MAX_REMEMBERED_TRIES:
                self._tries.popitem(last=False)

    def forget(self, **names: str) -> None:
        """Forget the tries under *names*."""
        with self._lock:
            for kind, name in names.items():
                self._tries.pop((kind, _name(kind, name)), None)

    def forget_all(self) -> None:
        """Forget all tries."""
        with self._lock:
            self._tries.clear()

    def _wait(self, kind: str, name: str) -> float:
        now = self._clock()
        number, last = self._tries.get((kind, name), _Tries(0, 0))
        exceeding = number - self._free[kind]
        if exceeding < 0:
            return 0
        if last > now:  # the clock was set back: it must not be waited until it is there again
            self._tries[kind, name] = _Tries(number, now)
            last = now
        return last + min(2.0 ** min(exceeding, 30), LONGEST_DELAY) - now


class Load:
    """The lanes of one bridge, its throttles, and the room for its *objects*.

    The reserve of a database that is a file is in *folder*.
    """

    def __init__(
        self,
        folder: Path,
        objects: ObjectStore,
        min_free: int,
        clock: Callable[[], float],
        *,
        reserve: bool,
    ) -> None:
        self.uploads = Lane(MAX_UPLOADS)
        self.passwords = Lane(MAX_PASSWORD_HASHES)
        self._own_hashes: dict[str, Lane] = {}
        # A list that has begun cannot be refused any more.
        self.lists = Lane(MAX_LISTS, math.inf, None)
        self.removals = Lane(MAX_REMOVALS, math.inf, None)
        self.lanes = {
            "uploads": self.uploads,
            "passwords": self.passwords,
            "lists": self.lists,
            "removals": self.removals,
        }
        self.wrong_passwords = Throttle(clock, "Too many wrong passwords", FREE_FAILURES)
        self.registrations = Throttle(clock, "Too many registrations", FREE_REGISTRATIONS)
        self.stopping = False
        self._sending = 0  # channels and downloads
        self._objects = objects
        self._min_free = min_free
        self._claimed = 0  # bytes that are being written
        self._lock = threading.Lock()
        self.reserve = Reserve(folder, RESERVE if reserve else 0)
        self.reserve.fill()

    def stop(self) -> None:
        """Let the bridge say that it is not ready, and each new answer that its connection ends.

        So a proxy that keeps connections has none left, and lost no request, when it stops.
        """
        self.stopping = True

    @asynccontextmanager
    async def hashing(self, owner: str) -> AsyncIterator[None]:
        """Let a password be hashed while the block runs; an *owner* of many leaves room to others.

        The owner is an account, or an address.
        """
        own = self._own_hashes.setdefault(owner.lower(), Lane(MAX_OWN_HASHES))
        try:
            async with own, self.passwords:
                yield
        finally:
            if not own.running and not own.waiting:
                self._own_hashes.pop(owner.lower(), None)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a channel or a download that sends while the block runs."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    def block_size(self) -> int:
        """Return how many bytes each of them may hold in memory."""
        return FRAME * (FRAMES_AT_ONCE if self._sending <= MANY_SENDING else 1)

    def free(self) -> int | None:
        """Return how many bytes are free on the disk of the store; None if nobody knows."""
        return self._objects.free()

    def check_room(self, size: int) -> None:
        """Refuse with 507 unless the disk has room for *size* bytes, and enough besides."""
        free = self.free()
        if free is not None and free - self._claimed < size + self._min_free:
            raise _no_space()

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Claim room on the disk for *size* bytes while the block writes them; else refuse."""
        self._claim(size)
        try:
            self.check_room(0)
            yield
        except DiskFullError:
            raise _no_space() from None
        finally:
            self._claim(-size)

    def _claim(self, size: int) -> None:
        with self._lock:
            self._claimed += size

    def run(self, function: Callable[[], T], *, share: float = 0.5) -> T:
        """Run *function*, which may use up this *share* of the reserve if the disk is full.

        Uploads may use nothing of it, and what removes something may use everything. Refuses with
        507 if that does not suffice, and with 503 if another process held the database too long.
        Once, *function* is run again if a deadlock ended it.
        """
        try:
            try:
                return self.reserve.run(function, share)
            except DeadlockError:
                return self.reserve.run(function, share)
        except DiskFullError:
            raise _no_space() from None
        except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
            if is_locked(error):
                raise _busy() from error
            raise


def _no_space() -> Refused:
    return Refused(507, "The bridge has no space left")


def _busy() -> Refused:
    return Refused(503, "The bridge is busy", Retry_After=str(WAIT_SECONDS))


def _name(kind: str, name: str) -> str:
    """Return the name under which tries count; IPv6 addresses of one network are one."""
    if kind == "account":
        return name.lower()[: MAX_ADDRESS + 1]  # a longer one is nobody's
    with suppress(ValueError):
        parsed = ipaddress.ip_address(name)
        if isinstance(parsed, ipaddress.IPv6Address):
            mapped = parsed.ipv4_mapped
            return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return name
