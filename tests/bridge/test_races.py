"""Three bridges on one PostgreSQL: of what they are asked at the same time, one request succeeds.

RACE_ROUNDS says how often each race is run.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from plain_client import PASSWORD, Key, Reply, User, ask, basic, form, pull, upload_headers
from postgres import Server
from processes import MINUTE, bridge_process
from storage_check import check_storage

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

ROUNDS = int(os.environ.get("RACE_ROUNDS", "1"))
PROCESSES = 3
SHARD_SIZE = 1000
# The program, which cuts files into small shards here, and hashes passwords fast.
PROGRAM = f"""
import sys
from pymdc.bridge import Bridge, settings
from pymdc.bridge.__main__ import main
from pymdc.bridge.routes import buckets
settings.PASSWORD_COST["n"] = 2
for free in settings.FREE_REGISTRATIONS, settings.FREE_FAILURES:
    free.update(dict.fromkeys(free, 10**6))
buckets.MAX_BUCKETS = 5
Bridge.__init__.__kwdefaults__["shard_size"] = {SHARD_SIZE}
sys.exit(main())
"""
Asking = Callable[[], Any]


class Race:
    """Three processes with a bridge each."""

    def __init__(self, bridges: Sequence[Bridge], server: Server, url: str, data: Path) -> None:
        self.bridges = bridges
        self._server = server
        self._name = url.rpartition("/")[2]
        self._data = data
        self._pool = ThreadPoolExecutor(2 * PROCESSES)
        self.statuses: Counter[int] = Counter()

    def sql(self, statement: str, *values: object) -> list[Any]:
        with self._server.connect(self._name) as connection:
            found = connection.execute(statement.encode(), values or None)
            return found.fetchall() if found.description else []

    def run(self, make: Callable[[int, Bridge], Asking], times: int = 2) -> list[Any]:
        """Ask each bridge *times* times, at once; return the statuses, or what else they return."""
        number = times * PROCESSES
        asking = [make(n, self.bridges[n % PROCESSES]) for n in range(number)]
        start = Barrier(number)

        def begin(function: Asking) -> Any:
            start.wait(MINUTE)
            return function()

        found = [*self._pool.map(begin, asking)]
        statuses = [one.status if isinstance(one, Reply) else one for one in found]
        self.statuses.update(status for status in statuses if isinstance(status, int))
        return sorted(statuses)

    def user(self, name: str) -> User:
        return User(_Known(self.bridges[0].endpoint, self), name)  # type: ignore[arg-type]

    def at(self, bridge: Bridge, name: str) -> User:
        return User(bridge, name, known=True)

    def activation(self, email: str) -> str:
        return str(self.sql("SELECT activation FROM users WHERE email = %s", email)[0][0])

    def check(self) -> None:
        """Check that rows and objects fit each other, and no request met an error."""
        stored = {path.name for path in (self._data / "shards").iterdir()} - {"installation"}
        check_storage(self.sql, stored)
        assert not {500, 502, 503} & self.statuses.keys(), self.statuses

    def deadlocks(self) -> int:
        count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(self.sql(count)[0][0])


class _Known:
    """The endpoint of a bridge in another process; its activation tokens are in the database."""

    def __init__(self, endpoint: str, race: Race) -> None:
        self.endpoint = endpoint
        self.activation_key = race.activation


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[Race]:
    folder, url = tmp_path_factory.mktemp("races"), postgres.new_database()
    data, logs = folder / "data", [folder / f"log{number}" for number in range(PROCESSES)]
    with ExitStack() as processes:
        bridges = []
        for log in logs:
            stderr = processes.enter_context(log.open("w"))
            running = bridge_process(
                data, "--database", url, stderr=stderr, program=("-c", PROGRAM)
            )
            bridge = Bridge()
            bridge.endpoint, _ = processes.enter_context(running)
            bridges.append(bridge)
        race = Race(bridges, postgres, url, data)
        yield race
        print(f"\n{ROUNDS} rounds of each race, with {race.deadlocks()} deadlocks; answers:")
        print(dict(race.statuses))
        race.check()
    for log in logs:
        assert "Traceback" not in log.read_text(), log.read_text()


def rounds(function: Callable[[Race, int], None]) -> Callable[[Race], None]:
    """Run a race as often as is wanted, and check the rows after the last one."""

    def run(race: Race) -> None:
        for number in range(ROUNDS):
            function(race, number)
        race.check()

    run.__name__ = function.__name__
    return run


def asking(*request: Any) -> Callable[[int, Bridge], Asking]:
    """Return what makes the same request to each bridge."""
    return lambda _, bridge: partial(ask, bridge, *request)


def register(bridge: Bridge, email: str, **fields: object) -> Reply:
    body = json.dumps({"email": email, "password": PASSWORD, **fields})
    return ask(bridge, "POST", "/users", body)


@rounds
def test_address_is_registered_and_activated_once(race: Race, number: int) -> None:
    email = f"once{number}@example.com"
    found = race.run(lambda _, bridge: partial(register, bridge, email))
    assert found == [200] + 5 * [400]
    link = f"/activations/{race.activation(email)}"
    assert race.run(asking("GET", link)) == [200] + 5 * [400]
    path, headers = f"/users/{email}", basic(email, PASSWORD)
    removed = race.run(asking("DELETE", path, None, headers))
    assert removed == [204] + 5 * [401]


@rounds
def test_signed_request_is_accepted_once(race: Race, number: int) -> None:
    user = race.user(f"signer{number}")

    def replay(_: int, bridge: Bridge) -> Asking:
        return partial(race.at(bridge, f"signer{number}").ask, "POST", "/buckets", {}, nonce=5)

    assert race.run(replay) == [200] + 5 * [401]
    assert len(user.ask("GET", "/buckets").json) == 1


@rounds
def test_key_in_all_its_forms_has_one_owner(race: Race, number: int) -> None:
    key, users = Key(f"wanted{number}"), [race.user(f"owner{number}-{n}") for n in range(6)]

    def claim(n: int, bridge: Bridge) -> Asking:
        form = key.public if n % 2 else key.uncompressed
        user = race.at(bridge, f"owner{number}-{n}")
        return partial(user.ask, "POST", "/keys", {"key": form})

    assert race.run(claim) == [200] + 5 * [400]
    assert sum(len(user.ask("GET", "/keys").json) for user in users) == 7


@rounds
def test_bucket_is_removed_and_the_last_one_created_once(race: Race, number: int) -> None:
    user = race.user(f"owner{number}")
    buckets = [user.bucket() for _ in range(4)]

    def create(_: int, bridge: Bridge) -> Asking:
        return partial(race.at(bridge, f"owner{number}").ask, "POST", "/buckets", {})

    def remove(_: int, bridge: Bridge) -> Asking:
        user = race.at(bridge, f"owner{number}")
        return partial(user.ask, "DELETE", f"/buckets/{buckets[0]}")

    assert race.run(create) == [200] + 5 * [403]
    assert race.run(remove) == [204] + 5 * [404]
    assert len(user.ask("GET", "/buckets").json) == 4


@rounds
def test_tokens_and_pointers_are_good_once(race: Race, number: int) -> None:
    user = race.user(f"holder{number}")
    bucket, content = user.bucket(), str(number).encode()
    path, body = f"/buckets/{bucket}/files", form(content)
    headers = upload_headers(user.token(bucket, "PUSH"), len(content))
    pushed = race.run(asking("PUT", path, body, headers))
    assert pushed == [200] + 5 * [401]
    for end in "", "/content":
        target, token = f"{path}/{file_hash(content)}{end}", user.token(bucket, "PULL")
        found = race.run(asking("GET", target, None, {"x-token": token}))
        assert found == [200] + 5 * [401]
    [pointer] = user.pointers(bucket, file_hash(content)).json

    def use(_: int, bridge: Bridge) -> Asking:
        channel = bridge.endpoint.replace("http", "ws")

        def pull_once() -> bytes:
            try:
                return pull({**pointer, "channel": channel})
            except AssertionError as error:
                return b"" if "The supplied token is not accepted" in str(error) else b"?"

        return pull_once

    assert race.run(use) == 5 * [b""] + [content]


@rounds
def test_same_file_is_stored_and_removed_once(race: Race, number: int) -> None:
    """Bytes of a user count once, and the transfer of the last round is not lost."""
    user = race.user(f"storing{number}")
    bucket, content = user.bucket(), random.Random(number).randbytes(2500)
    path = f"/buckets/{bucket}/files/{file_hash(content)}"

    def upload(_: int, bridge: Bridge) -> Asking:
        return partial(race.at(bridge, f"storing{number}").upload, bucket, content)

    def remove(_: int, bridge: Bridge) -> Asking:
        return partial(race.at(bridge, f"storing{number}").ask, "DELETE", path)

    assert race.run(upload) == 6 * [200]
    assert user.download(bucket, file_hash(content)) == content
    assert race.run(remove) == [204] + 5 * [404]
    race.check()


@rounds
def test_shared_shards_are_there_as_long_as_a_file_needs_them(race: Race, number: int) -> None:
    """Two users upload and remove files of the same shards, in opposite orders."""
    choose = random.Random(number)
    shards = [choose.randbytes(SHARD_SIZE) for _ in range(5)]
    contents = [
        b"".join(part)
        for part in (shards, shards[::-1], shards[1:], shards[:2], shards[2:4], shards[:1] * 3)
    ]
    names = [f"sharing{number}-{n}" for n in range(2)]
    buckets = {
        name: [user.bucket() for _ in range(2)] for name in names for user in [race.user(name)]
    }

    def use(n: int, bridge: Bridge) -> Asking:
        choose, name = random.Random(10 * number + n), names[n % 2]
        user = race.at(bridge, name)

        def upload_and_remove() -> int:
            for _ in range(4):
                bucket, content = choose.choice(buckets[name]), choose.choice(contents)
                if choose.random() < 0.6:
                    status = user.upload(bucket, content).status
                    expected = {200}
                else:
                    path = f"/buckets/{bucket}/files/{file_hash(content)}"
                    status, expected = user.ask("DELETE", path).status, {204, 404}
                if status not in expected:
                    return status
            return 200

        return upload_and_remove

    assert race.run(use) == 6 * [200]
    race.check()
    for name in names:
        user = race.at(race.bridges[0], name)
        for bucket in buckets[name]:
            for file in user.ask("GET", f"/buckets/{bucket}/files").json:
                content = user.download(bucket, file["hash"])
                assert file_hash(content) == file["hash"] or content in contents
                assert user.ask("DELETE", f"/buckets/{bucket}/files/{file['hash']}").status == 204
    race.check()


@rounds
def test_room_is_given_once(race: Race, number: int) -> None:
    user = race.user(f"full{number}")
    bucket = user.bucket(storage=2.5e-6)

    def upload(n: int, bridge: Bridge) -> Asking:
        content = random.Random(n).randbytes(1000)
        return partial(race.at(bridge, f"full{number}").upload, bucket, content)

    assert race.run(upload) == 2 * [200] + 4 * [413]


@rounds
def test_transfer_is_given_once(race: Race, number: int) -> None:
    user = race.user(f"sending{number}")
    bucket = user.bucket(transfer=2.5e-6)
    stored = user.upload(bucket, random.Random(number).randbytes(1000)).json["hash"]

    def pointers(_: int, bridge: Bridge) -> Asking:
        return partial(race.at(bridge, f"sending{number}").pointers, bucket, stored)

    assert race.run(pointers) == 2 * [200] + 4 * [403]


@rounds
def test_removed_account_leaves_nothing(race: Race, number: int) -> None:
    """Meanwhile it is used for buckets, keys and files, and the address is registered again."""
    user = race.user(f"leaving{number}")
    email, bucket = user.email, user.bucket()

    def use(n: int, bridge: Bridge) -> Asking:
        user = race.at(bridge, f"leaving{number}")
        remove = partial(ask, bridge, "DELETE", f"/users/{email}", None, basic(email, PASSWORD))
        create = partial(user.ask, "POST", "/buckets", {})
        claim = partial(user.ask, "POST", "/keys", {"key": Key(f"{email}-{n}").public})

        def upload() -> Reply | int:
            try:
                return user.upload(bucket, b"abc")
            except AssertionError:  # there was no token
                return 401

        return (remove, create, claim, upload, remove, partial(register, bridge, email))[n]

    found = race.run(use)
    assert found.count(204) == 1, found
    assert {*found} <= {200, 204, 400, 401, 404}, found
    end = time.monotonic() + MINUTE
    left = "SELECT count(*) FROM users WHERE email = %s AND removed IS NOT NULL"
    while race.sql(left, email)[0][0]:
        assert time.monotonic() < end
    assert race.sql('SELECT id FROM buckets WHERE "user" = %s', email) == []
    assert race.sql('SELECT key FROM public_keys WHERE "user" = %s', email) == []
