"""Mixed load on the program, which is killed again and again: what it acknowledged is kept.

The seed is printed. LOAD_SEED repeats what the customers draw, and LOAD_MINUTES says how long the
load lasts: 60 minutes if it is not set.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
from customer import BROKEN, Customer
from long_runs import seeded, wrong_lines
from processes import MINUTE, bridge_process
from storage_check import check_storage

from pymdc.bridge import Bridge

MINUTES = float(os.environ.get("LOAD_MINUTES", "60"))
PERIODS = 15  # between kills, at least
CUSTOMERS = 8
NEW_CUSTOMER = 20.0  # seconds between two registrations
MOST_CUSTOMERS = 24


@pytest.fixture
def seed() -> Iterator[int]:
    with seeded("LOAD_SEED", 60 * MINUTES + 600) as seed:
        yield seed


class Load:
    """The customers of *bridges*, each on a thread; they pause while a bridge is away.

    *activation* is for `Customer`.
    """

    def __init__(
        self, bridges: Sequence[Bridge], activation: Callable[[str], str | None], seed: int
    ) -> None:
        self._bridges = bridges
        self._activation = activation
        self._seed = seed
        self._serving = threading.Event()
        self._kills = 0
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.customers: list[Customer] = []
        self.faults: list[str] = []

    def add_customer(self) -> None:
        number = len(self.customers)
        bridge = self._bridges[number % len(self._bridges)]
        name, seed = f"customer{number}", self._seed + number
        customer = Customer(bridge, self._activation, name, seed)
        self.customers.append(customer)
        thread = threading.Thread(target=self._run, args=[customer])
        self._threads.append(thread)
        thread.start()

    def done(self) -> int:
        """Return how many requests there were."""
        return sum(customer.log.total() for customer in self.customers)

    def resume(self) -> None:
        self._serving.set()

    def pause(self) -> None:
        """Let nobody begin anything more, for a kill; what has begun goes on."""
        self._serving.clear()
        self._kills += 1

    def end(self) -> None:
        self._over.set()
        self._serving.set()
        for thread in self._threads:
            thread.join()

    def _run(self, customer: Customer) -> None:
        try:
            checked = 0
            while not self._over.is_set() and not self.faults:
                self._serving.wait()
                kills = self._kills
                try:
                    if checked < kills:
                        customer.check()
                        checked = kills
                    else:
                        customer.work()
                except BROKEN as error:
                    if self._kills == kills:
                        raise
                    customer.log[f"broken by {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001  # the test fails with it
            self.faults.append(repr(error))


class Program:
    """The program, on one port and with one log, also after it was killed."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[tuple[str, Popen[str]]]:
        with open(self._log, "a", encoding="utf-8") as log:
            options = "--port", str(self._port)
            with bridge_process(self._data, *options, stderr=log) as (endpoint, process):
                yield endpoint, process

    def check(self) -> None:
        """Check the folder, once the bridge has ended the removals that a kill broke off."""
        end = time.monotonic() + MINUTE
        while True:
            try:
                return self._check()
            except AssertionError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def _check(self) -> None:
        with closing(sqlite3.connect(self._data / "metadata.sqlite")) as database:
            stored = [path.name for path in (self._data / "shards").glob("[0-9a-f]*")]
            check_storage(database.execute, stored)
        assert not (self._data / "set-aside").exists()

    def activation(self, email: str) -> str | None:
        """Return the activation token of an address; None if it was used."""
        with closing(sqlite3.connect(self._data / "metadata.sqlite")) as database:
            statement = "SELECT activation FROM users WHERE email = ?"
            [token] = database.execute(statement, [email]).fetchone()
        return None if token is None else str(token)

    def wrong_lines(self) -> list[str]:
        return wrong_lines(self._log)


def test_what_was_acknowledged_outlasts_kills(seed: int, tmp_path: Path) -> None:
    program, end = Program(tmp_path / "data", tmp_path / "log"), time.monotonic() + 60 * MINUTES
    bridge = Bridge()
    load, kills, joined = Load([bridge], program.activation, seed), 0, 0.0
    try:
        while time.monotonic() < end and not load.faults:
            with program.running() as (bridge.endpoint, process):
                program.check()
                load.resume()
                killed = time.monotonic() + min(60, 60 * MINUTES / PERIODS)
                while time.monotonic() < killed and not load.faults:
                    if len(load.customers) < CUSTOMERS or (
                        time.monotonic() > joined + NEW_CUSTOMER
                        and len(load.customers) < MOST_CUSTOMERS
                    ):
                        load.add_customer()
                        joined = time.monotonic()
                    time.sleep(0.1)
                load.pause()
                process.kill()
                process.wait(MINUTE)
                kills += 1
        with program.running() as (bridge.endpoint, _):
            program.check()
            load.end()
            seen: set[str] = set()  # shards are shared by all who have the same file
            for customer in load.customers if not load.faults else ():
                customer.check(seen)
    finally:
        load.end()
    with program.running():
        program.check()
    report(load, kills)
    print(*load.faults, *program.wrong_lines()[:100], sep="\n")
    assert load.faults == []
    assert program.wrong_lines() == []


def report(load: Load, kills: int) -> None:
    done: Counter[str] = Counter()
    for customer in load.customers:
        done += customer.log
    print(f"{done.total()} requests of {len(load.customers)} customers, {kills} kills")
    print(dict(done.most_common()))
