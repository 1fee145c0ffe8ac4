"""What turns too much load into 429, 503 and 507; and the work that may run at once."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from pymdc.bridge.errors import Refused
from pymdc.bridge.settings import (
    FORGOTTEN,
    FREE_FAILURES,
    LONGEST_DELAY,
    MAX_LISTS,
    MAX_PASSWORD_HASHES,
    MAX_REMEMBERED_FAILURES,
    MAX_UPLOADS,
    MAX_WAITING,
    WAIT_SECONDS,
)
from pymdc.bridge.storage.disk import DiskFullError, Reserve, free_bytes

T = TypeVar("T")


class Lane:
    """Lets *at_once* requests of a kind run at the same time; the others wait, or get 503."""

    def __init__(self, at_once: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self.running = self.waiting = 0
        self.waits = 0  # how many have waited
        self.waited = 0.0  # seconds, all together

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
        if self.waiting >= MAX_WAITING:
            raise _busy()
        self.waiting += 1
        self.waits += 1
        begun = time.monotonic()
        try:
            await asyncio.wait_for(self._slots.acquire(), WAIT_SECONDS)
        except asyncio.TimeoutError:
            raise _busy() from None
        finally:
            self.waiting -= 1
            self.waited += time.monotonic() - begun


class _Failures(NamedTuple):
    number: int
    last: float  # seconds, of the clock


class Throttle:
    """Slows down whoever tries passwords: for one account, and from one address.

    The first failures are free. After each further one the next try has to wait twice as long.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def check(self, email: str, address: str) -> None:
        """Refuse with 429 if the next try has to wait."""
        wait = max(self._wait(*name) for name in _names(email, address))
        if wait > 0:
            raise Refused(429, "Too many wrong passwords", Retry_After=str(math.ceil(wait)))

    def failed(self, email: str, address: str) -> None:
        """Record a wrong password."""
        now = self._clock()
        for name in _names(email, address):
            number, last = self._failures.pop(name, _Failures(0, now))
            self._failures[name] = _Failures(1 if now - last > FORGOTTEN else number + 1, now)
        while len(self._failures) > MAX_REMEMBERED_FAILURES:
            self._failures.popitem(last=False)

    def succeeded(self, email: str) -> None:
        """Forget the failures of the account; those of an address could hide behind another."""
        self._failures.pop(("account", email.lower()), None)

    def _wait(self, kind: str, name: str) -> float:
        number, last = self._failures.get((kind, name), _Failures(0, 0))
        exceeding = number - FREE_FAILURES[kind]
        if exceeding < 0:
            return 0
        return last + min(2.0 ** min(exceeding, 30), LONGEST_DELAY) - self._clock()


class Load:
    """The lanes of one bridge, its throttle, and the room on its disk."""

    def __init__(self, folder: Path, min_free: int, clock: Callable[[], float]) -> None:
        self.uploads = Lane(MAX_UPLOADS)
        self.passwords = Lane(MAX_PASSWORD_HASHES)
        self.lists = Lane(MAX_LISTS)
        self.lanes = {"uploads": self.uploads, "passwords": self.passwords, "lists": self.lists}
        self.throttle = Throttle(clock)
        self.stopping = False
        self._folder = folder
        self._min_free = min_free
        self._claimed = 0  # bytes that are being written
        self._lock = threading.Lock()
        self.reserve = Reserve(folder)
        self.reserve.fill()

    def stop(self) -> None:
        """Note that the bridge is stopping."""
        self.stopping = True

    def free(self) -> int:
        """Return how many bytes are free on the disk."""
        return free_bytes(self._folder)

    def check_room(self, size: int) -> None:
        """Refuse with 507 unless the disk has room for *size* bytes, and enough besides."""
        if self.free() - self._claimed < size + self._min_free:
            raise no_space()

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Claim room on the disk for *size* bytes while the block writes them."""
        self._claim(size)
        try:
            self.check_room(0)
            yield
        finally:
            self._claim(-size)

    def _claim(self, size: int) -> None:
        with self._lock:
            self._claimed += size

    def run(self, function: Callable[[], T], *, share: float = 0.5) -> T:
        """Run *function*, which may use up this *share* of the reserve if the disk is full.

        Uploads may use nothing of it, and what removes something may use everything. Refuses with
        507 if that does not suffice.
        """
        try:
            return self.reserve.run(function, share)
        except DiskFullError:
            raise no_space() from None


def no_space() -> Refused:
    """Return the refusal of what a full disk has no room for."""
    return Refused(507, "The bridge has no space left")


def _busy() -> Refused:
    return Refused(503, "The bridge is busy", Retry_After=str(WAIT_SECONDS))


def _names(email: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the names under which failures count; IPv6 addresses of one network are one."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    return ("account", email.lower()), ("address", address)
