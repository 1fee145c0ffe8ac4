"""Two bridges behind nginx are restarted one after the other, and no call of pymdc fails.

They stand on PostgreSQL and SeaweedFS, and then on one folder. ROLLING_CALLS says how many calls
there are, at least, and ROLLING_SEED repeats what the customers draw.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from traceback import format_exc
from typing import Any

import pytest
import yaml
from backends import Backend
from certificates import certificate
from customer import CONTENTS, MOST_BUCKETS, MOST_FILES, content
from long_runs import seeded, wrong_lines
from modes import MODES
from plain_client import ask
from processes import MINUTE, BridgeProgram
from reverse_proxies import DEPLOY, NGINX_LOG, nginx_before_several
from servers import free_port
from storage_check import check_storage

import pymdc
from pymdc.api import Bucket, Buckets, Keys
from pymdc.bridge.options import PREFIX
from pymdc.testing.accounts import Account, make_account

CALLS = int(os.environ.get("ROLLING_CALLS", "2000"))
CUSTOMERS = 8
MOST_FAILED = 50  # after which nothing more is tried
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
BRIDGES = [name for name in SERVICES if name.startswith("bridge-")]
DRAIN = SERVICES[BRIDGES[0]]["environment"][PREFIX + "DRAIN"]
REQUEST = re.compile(r" INFO \S+ \S+ [A-Z]+ /\S* (\d+) ")  # a line of the log; /ready has none

pytestmark = pytest.mark.storage


class Calls:
    """The calls of all customers: how many of each kind, how long they took, and what failed."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self._more = threading.Condition()

    def make(self, ask: Callable[..., Any], method: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a call; return its answer, or raise what it is instead."""
        begun = time.monotonic()
        try:
            return pymdc.unwrap(ask(method, *args, **kwargs))
        finally:
            with self._more:
                self.kinds[method.__qualname__] += 1
                self.seconds.append(time.monotonic() - begun)
                self._more.notify_all()

    def fail(self, traceback: str) -> None:
        with self._more:
            self.failed.append(traceback)
            self._more.notify_all()

    @property
    def hopeless(self) -> bool:
        return len(self.failed) >= MOST_FAILED

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened; whether it did is asked after each call."""
        with self._more:
            assert self._more.wait_for(lambda: happened() or self.hopeless, MINUTE)
        assert not self.hopeless, "\n".join(self.failed[:3])


class Customer:
    """Makes calls of all kinds, and keeps the names, keys and files that were acknowledged."""

    def __init__(self, account: Account, calls: Calls, choose: random.Random, folder: Path) -> None:
        self._account, self._calls = account, calls
        self._buckets = Buckets(account.key_pair, client=account.client)
        self._keys = Keys(account.user)
        self._known = [account.key_pair]
        self._names: dict[str, str] = {}
        self._files: dict[str, dict[str, int]] = {}
        self._choose = choose
        self._folder = folder
        folder.mkdir()

    def work(self) -> None:
        """Make one call, or a few."""
        methods: dict[Callable[[], None], int] = {
            self._upload: 20,
            self._upload_with_token: 10,
            self._download: 20,
            self._download_with_token: 5,
            self._list_files: 10,
            self._rename_file: 5,
            self._remove_file: 10,
            self._list_buckets: 10,
            self._create_bucket: 3,
            self._change_bucket: 7,
            self._remove_bucket: 1,
            self._list_keys: 3,
            self._add_key: 2,
            self._remove_key: 2,
        }
        [method] = self._choose.choices([*methods], [*methods.values()])
        (method if self._files else self._create_bucket)()

    def check(self, seen: set[str]) -> None:
        """Compare what the bridges have with what they acknowledged.

        Files whose hashes are in *seen* were fetched already; the others are fetched too.
        """
        self._list_buckets()
        self._list_keys()
        for bucket, files in self._files.items():
            self._check_list(self._bucket(bucket))
            for name in files.keys() - seen:
                self._fetch(self._bucket(bucket), name)
                seen.add(name)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        return self._calls.make(self._choose.choice([*MODES.values()]), method, *args, **kwargs)

    def _list_buckets(self) -> None:
        listed = self._call(self._buckets.list)
        assert {bucket["id"]: bucket["name"] for bucket in listed} == self._names
        used = self._call(self._buckets.usage)["buckets"]
        files = {bucket: len(files) for bucket, files in self._files.items()}
        assert {bucket["id"]: bucket["files"] for bucket in used} == files

    def _create_bucket(self) -> None:
        if len(self._files) == MOST_BUCKETS:
            return
        name = f"bucket {self._choose.random()}"
        made = self._call(self._buckets.create, name, 10, 30, [pymdc.ECDSA()])
        self._names[made["id"]] = made["name"]
        self._files[made["id"]] = {}

    def _change_bucket(self) -> None:
        bucket, name = self._any_bucket(), f"bucket {self._choose.random()}"
        self._names[bucket.bucket_id] = self._call(bucket.patch, {"name": name})["name"]
        assert self._call(bucket.list)["name"] == name

    def _remove_bucket(self) -> None:
        bucket = self._any_bucket()
        self._call(bucket.delete)
        del self._names[bucket.bucket_id], self._files[bucket.bucket_id]

    def _upload(self) -> None:
        self._send(self._any_bucket())

    def _upload_with_token(self) -> None:
        bucket = self._any_bucket()
        token = self._call(bucket.files.token, "PUSH")["token"]
        self._send(bucket, token)

    def _send(self, bucket: Bucket, token: str | None = None) -> None:
        files, number = self._files[bucket.bucket_id], self._choose.randrange(CONTENTS)
        if len(files) < MOST_FILES:
            data, name = bytearray(content(number)), f"{number}.bin"
            entry = self._call(bucket.files.upload, data, token, name=name)
            files[entry["hash"]] = number

    def _download(self) -> None:
        bucket = self._any_bucket()
        if name := self._any_file(bucket):
            self._fetch(bucket, name)

    def _download_with_token(self) -> None:
        bucket = self._any_bucket()
        if name := self._any_file(bucket):
            token = self._call(bucket.files.token, "PULL")["token"]
            self._fetch(bucket, name, token)

    def _fetch(self, bucket: Bucket, name: str, token: str | None = None) -> None:
        target = self._folder / name
        self._call(bucket.files.download, name, token, to=target)
        assert target.read_bytes() == content(self._files[bucket.bucket_id][name])
        target.unlink()

    def _list_files(self) -> None:
        self._check_list(self._any_bucket())

    def _check_list(self, bucket: Bucket) -> None:
        listed = self._call(bucket.files.list)
        assert {file["hash"] for file in listed} == self._files[bucket.bucket_id].keys()

    def _rename_file(self) -> None:
        bucket, name = self._any_bucket(), f"{self._choose.random()}.bin"
        if file := self._any_file(bucket):
            assert self._call(bucket.files.rename, file, name)["filename"] == name

    def _remove_file(self) -> None:
        bucket = self._any_bucket()
        if name := self._any_file(bucket):
            self._call(bucket.files.delete, name)
            del self._files[bucket.bucket_id][name]

    def _list_keys(self) -> None:
        listed = self._call(self._keys.list)
        assert {key["key"] for key in listed} == {key.get_public_key() for key in self._known}

    def _add_key(self) -> None:
        key = pymdc.ECDSA()
        self._call(self._keys.create, key)
        self._known.append(key)

    def _remove_key(self) -> None:
        if len(self._known) > 1:
            self._call(self._keys.delete, self._known[-1])
            self._known.pop()

    def _bucket(self, bucket: str) -> Bucket:
        return Bucket(bucket, self._account.key_pair, client=self._account.client)

    def _any_bucket(self) -> Bucket:
        return self._bucket(self._choose.choice([*self._files]))

    def _any_file(self, bucket: Bucket) -> str | None:
        names = [*self._files[bucket.bucket_id]]
        return self._choose.choice(names) if names else None


@pytest.fixture
def seed() -> Iterator[int]:
    with seeded("ROLLING_SEED", 300 + CALLS / 10) as seed:
        yield seed


def test_no_call_fails_while_bridges_are_restarted_one_after_the_other(
    seed: int, backend: Backend, tmp_path: Path
) -> None:
    pem, port = certificate(tmp_path, "localhost"), free_port()
    url = f"https://localhost:{port}"
    options = *backend.options()[2:], "--url", url, "--trusted-proxies", "127.0.0.1"
    programs = [
        BridgeProgram(backend.data_of(name), tmp_path / f"{name}.log", *options, f"--drain={DRAIN}")
        for name in BRIDGES
    ]

    def activation(email: str) -> str:
        statement = "SELECT activation FROM users WHERE email = :email"
        return str(backend.execute(statement, {"email": email})[0][0])

    calls, restarts, begun = Calls(), 0, time.monotonic()
    with errors_shown(tmp_path / NGINX_LOG), ExitStack() as running:
        for program in programs:
            program.start()
            running.callback(program.kill)  # which does not drain
        ports = [program.port for program in programs]
        running.enter_context(nginx_before_several(tmp_path, port, ports[0], pem, *ports[1:]))
        client = running.enter_context(pymdc.Client(url, ca_certs=str(pem)))
        customers = []
        for number in range(CUSTOMERS):
            account = make_account(client, activation, nullcontext)
            folder = tmp_path / f"customer{number}"
            customers.append(Customer(account, calls, random.Random(seed + number), folder))
        with working(customers, calls):
            for program in programs:
                wait_until_it_serves(program, calls)
            while calls.kinds.total() < CALLS or not restarts:
                for program in programs:
                    assert program.stop() == 0
                    program.start()
                    wait_until_it_serves(program, calls)
                    restarts += 1
        seconds = time.monotonic() - begun
        report(calls, restarts, seconds, programs)
        assert calls.failed == []
        seen: set[str] = set()  # shards are shared by all who have the same file
        for customer in customers:
            customer.check(seen)
        check_storage(backend.execute, backend.objects())
    for program in programs:
        assert wrong_lines(program.log) == []


@contextmanager
def errors_shown(log: Path) -> Iterator[None]:
    """Add to what the block raises which errors are in *log*."""
    try:
        yield
    except Exception as error:
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        errors = re.findall(r"^.*\[(?:error|crit|alert|emerg)\].*$", text, re.MULTILINE)
        raise AssertionError("\n".join([str(error), "nginx said:", *errors])) from error


@contextmanager
def working(customers: Sequence[Customer], calls: Calls) -> Iterator[None]:
    """Let each customer work on a thread of its own until the end of the block."""
    over = threading.Event()

    def work(customer: Customer) -> None:
        while not over.is_set() and not calls.hopeless:
            try:
                customer.work()
            except Exception:  # noqa: BLE001  # the test fails with it
                calls.fail(format_exc())

    threads = [threading.Thread(target=work, args=[customer]) for customer in customers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait_until_it_serves(program: BridgeProgram, calls: Calls) -> None:
    """Wait until a bridge is ready, and nginx has sent a request to it since."""
    while ask(program.bridge, "GET", "/ready").status != 200:
        pass
    begun = program.log.stat().st_size

    def serves() -> bool:
        with program.log.open(encoding="utf-8") as log:
            log.seek(begun)
            return bool(REQUEST.search(log.read()))

    calls.wait_for(serves)


def report(calls: Calls, restarts: int, seconds: float, programs: Sequence[BridgeProgram]) -> None:
    refused = Counter(
        status
        for program in programs
        for status in REQUEST.findall(program.log.read_text("utf-8"))
        if int(status) >= 400
    )
    print(
        f"{calls.kinds.total()} calls in {seconds:.0f} s, {restarts} restarts,"
        f" {len(calls.failed)} failed; the longest took {max(calls.seconds):.1f} s"
    )
    print(dict(calls.kinds.most_common()))
    print("refused requests", dict(refused))
    print(*calls.failed, sep="\n")
