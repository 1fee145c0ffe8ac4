"""What only one of two requests may do, on PostgreSQL, where both are under way at the same time.

In these tests something that both need is locked until both wait for it, so that the second one
began before the first one was committed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from administration import admin_of
from plain_client import DATA, PASSWORD, Key, Reply, User, ask, basic, form, pull, upload_headers
from postgres import Server
from processes import MINUTE
from stored_objects import number_of_objects, upload_in_halves

from pymdc._crypto.file_hash import file_hash
from pymdc._crypto.secp256k1 import parse_signature, point
from pymdc.bridge import Bridge
from pymdc.bridge.errors import UnavailableError
from pymdc.bridge.load import Load
from pymdc.bridge.routes import buckets, files, keys
from pymdc.bridge.settings import UPLOAD_LIFETIME
from pymdc.bridge.storage.database import Database, lock_name
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.group_commit import commits_of
from pymdc.bridge.storage.prepared import Prepared
from pymdc.bridge.storage.servers import open_postgres

if TYPE_CHECKING:  # not installed everywhere
    import psycopg
    from psycopg.rows import TupleRow

SHARD_SIZE = 1000
MINUTES = 60_000  # milliseconds
NEW_PASSWORD = sha256(b"new").hexdigest()

Asking = Callable[[], Any]


class Contest:
    """Two bridges on one database, and a transaction of the test's own that locks something."""

    def __init__(self, bridges: Sequence[Bridge], server: Server, url: str) -> None:
        self.bridges = bridges
        self._server = server
        self._name = url.rpartition("/")[2]
        self.mails: list[tuple[str, str]] = []
        self.alice = User(bridges[0], "alice")

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Execute SQL, and return its rows."""
        with self._server.connect(self._name) as connection:
            return _execute(connection, statement, values)

    @contextmanager
    def locked(self, statement: str, *values: object, waiting: int) -> Iterator[None]:
        """Commit *statement* after the block, when so many sessions are *waiting* for a lock."""
        with self._server.connect(self._name) as connection:
            with connection.transaction():
                _execute(connection, statement, values)
                yield
                self.wait(waiting)

    def both(self, statement: str, *values: object, ask: Sequence[Asking]) -> list[Any]:
        """Return what *ask* return, all of which wait for what *statement* locks; in order."""
        with ThreadPoolExecutor(len(ask)) as pool:
            with self.locked(statement, *values, waiting=len(ask)):
                futures = [pool.submit(function) for function in ask]
            found = [future.result(MINUTE) for future in futures]
        return sorted(one.status if isinstance(one, Reply) else one for one in found)

    def on(self, number: int) -> User:
        """Return the user at one of the bridges."""
        return User(self.bridges[number], "alice", known=True)

    def wait(self, number: int) -> None:
        """Wait until so many sessions wait for a lock."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = %s"
        end = time.monotonic() + MINUTE
        while self.sql(query, self._name, "Lock")[0][0] < number:
            assert time.monotonic() < end, self.sql("SELECT query, state FROM pg_stat_activity")


def _execute(
    connection: psycopg.Connection[TupleRow], statement: str, values: Sequence[object]
) -> list[Any]:
    found = connection.execute(statement.encode(), values or None)
    return found.fetchall() if found.description else []


@pytest.fixture
def contest(tmp_path: Path, postgres: Server, url: str) -> Iterator[Contest]:
    mails: list[tuple[str, str]] = []

    def bridge() -> Bridge:
        def announce(email: str, text: str) -> None:
            mails.append((email, text))

        return Bridge(tmp_path / "data", database=url, shard_size=SHARD_SIZE, announce=announce)

    with bridge() as first, bridge() as second:
        running = Contest([first, second], postgres, url)
        running.mails = mails
        mails.clear()
        yield running


def run(function: Callable[[], None]) -> int:
    function()
    return 0


def register(bridge: Bridge, email: str, **fields: object) -> Reply:
    body = json.dumps({"email": email, "password": PASSWORD, **fields})
    return ask(bridge, "POST", "/users", body)


def test_registration_has_one_winner(contest: Contest) -> None:
    tries = [lambda bridge=bridge: register(bridge, "b@x.org") for bridge in contest.bridges]
    # It is rolled back, so both are first.
    row = "INSERT INTO users (email, password, created) VALUES ('b@x.org', '', 0)"
    statement = f"{row}; DELETE FROM users WHERE email = 'b@x.org'"
    assert contest.both(statement, ask=tries) == [200, 400]
    assert len(contest.mails) == 1


def test_registration_of_before_is_replaced_once(contest: Contest) -> None:
    register(contest.bridges[0], "b@x.org")
    contest.sql("UPDATE users SET mailed = mailed - %s", 2 * MINUTES)
    tries = [lambda bridge=bridge: register(bridge, "b@x.org") for bridge in contest.bridges]
    lock = "SELECT 1 FROM users WHERE email = 'b@x.org' FOR UPDATE"
    assert contest.both(lock, ask=tries) == [200, 400]
    assert len(contest.mails) == 2


def test_registration_that_is_slower_replaces_none_that_began_later(contest: Contest) -> None:
    """A bridge takes its time before it waits for the row, and clocks of machines differ."""
    row = {"created": 0, "mailed": int(time.time() * 1000) + 1000}
    insert = (
        "INSERT INTO users (email, password, created, mailed, activation)"
        " VALUES ('b@x.org', '', %s, %s, 'token')"
    )
    asking = [lambda: register(contest.bridges[0], "b@x.org")]
    assert contest.both(insert, *row.values(), ask=asking) == [400]


def test_activation_has_one_winner(contest: Contest) -> None:
    register(contest.bridges[0], "b@x.org")
    link = f"/activations/{contest.bridges[0].activation_key('b@x.org')}"
    tries = [lambda bridge=bridge: ask(bridge, "GET", link) for bridge in contest.bridges]
    lock = "SELECT 1 FROM users WHERE email = 'b@x.org' FOR UPDATE"
    assert contest.both(lock, ask=tries) == [200, 400]


def test_activated_account_is_not_deleted_as_an_old_registration(contest: Contest) -> None:
    bridge = contest.bridges[0]
    register(bridge, "b@x.org", pubkey=Key("b").public)
    contest.sql("UPDATE users SET created = 0")
    activate = "UPDATE users SET activation = NULL WHERE email = 'b@x.org'"
    contest.both(activate, ask=[partial(run, bridge._housekeeper.keep_house)])
    assert contest.sql("SELECT count(*) FROM users")[0][0] == 2
    assert contest.sql("SELECT count(*) FROM public_keys")[0][0] == 2


@pytest.mark.parametrize("same", [False, True])
def test_invitation_has_one_winner(contest: Contest, tmp_path: Path, url: str, same: bool) -> None:
    contest.sql("INSERT INTO invitations (code, created) VALUES ('code', 0)")
    data = tmp_path / "data"
    with (
        Bridge(data, database=url, registration="invite") as one,
        Bridge(data, database=url, registration="invite") as other,
    ):
        tries = [
            lambda: register(one, "b@x.org", invitation="code"),
            lambda: register(other, "b@x.org" if same else "c@x.org", invitation="code"),
        ]
        lock = "SELECT 1 FROM invitations FOR UPDATE"
        assert contest.both(lock, ask=tries) == [200, 400 if same else 403]


def test_password_is_changed_once(contest: Contest) -> None:
    path, body = f"/users/{contest.alice.email}", json.dumps({"password": NEW_PASSWORD})
    headers = basic(contest.alice.email, PASSWORD)
    tries = [
        lambda bridge=bridge: ask(bridge, "PATCH", path, body, headers)
        for bridge in contest.bridges
    ]
    assert contest.both("SELECT 1 FROM users FOR UPDATE", ask=tries) == [200, 401]


def test_account_is_removed_once(contest: Contest) -> None:
    path, headers = f"/users/{contest.alice.email}", basic(contest.alice.email, PASSWORD)
    tries = [
        lambda bridge=bridge: ask(bridge, "DELETE", path, None, headers)
        for bridge in contest.bridges
    ]
    assert contest.both("SELECT 1 FROM users FOR UPDATE", ask=tries) == [204, 401]
    assert contest.sql("SELECT count(*) FROM users")[0][0] == 0


def ask_for_reset(contest: Contest) -> str:
    """Return a token for a new password."""
    contest.mails.clear()
    ask(contest.bridges[0], "POST", f"/users/{contest.alice.email}/reset")
    end = time.monotonic() + MINUTE
    while not contest.mails:
        assert time.monotonic() < end
    return contest.mails[0][1]


def reset(bridge: Bridge, email: str, token: str) -> Reply:
    body = json.dumps({"token": token, "password": NEW_PASSWORD})
    return ask(bridge, "PUT", f"/users/{email}/reset", body)


def test_reset_token_is_good_once(contest: Contest) -> None:
    email, token = contest.alice.email, ask_for_reset(contest)
    tries = [lambda bridge=bridge: reset(bridge, email, token) for bridge in contest.bridges]
    assert contest.both("SELECT 1 FROM resets FOR UPDATE", ask=tries) == [200, 400]


def test_two_tokens_set_one_password(contest: Contest) -> None:
    """Each reset voids the other's token, too."""
    email, first = contest.alice.email, ask_for_reset(contest)
    contest.sql("UPDATE users SET mailed = NULL")
    second = ask_for_reset(contest)
    tries = [
        lambda: reset(contest.bridges[0], email, first),
        lambda: reset(contest.bridges[1], email, second),
    ]
    assert contest.both("SELECT 1 FROM users FOR UPDATE", ask=tries) == [200, 400]


@pytest.mark.parametrize("what", ["key", "key by password", "bucket", "list"])
def test_who_is_locked_out_by_a_reset_gets_nothing_that_lasts(contest: Contest, what: str) -> None:
    """A request that was authenticated before the reset is executed after it."""
    alice, token = contest.alice, ask_for_reset(contest)
    bucket, other = alice.bucket(pubkeys=[]), {"key": Key("another").public}
    contest.sql("UPDATE buckets SET pubkeys = '[]'")
    body, headers = json.dumps(other), basic(alice.email, PASSWORD)
    stranger: dict[str, Asking] = {
        "key": lambda: contest.on(1).ask("POST", "/keys", other),
        "key by password": lambda: ask(contest.bridges[1], "POST", "/keys", body, headers),
        "bucket": lambda: contest.on(1).ask("POST", "/buckets", {}),
        "list": lambda: contest.on(1).ask(
            "PATCH", f"/buckets/{bucket}", {"pubkeys": [alice.key.public]}
        ),
    }
    with ThreadPoolExecutor(2) as pool:
        with contest.locked("SELECT 1 FROM users FOR UPDATE", waiting=2):
            owner = pool.submit(reset, contest.bridges[0], alice.email, token)
            contest.wait(1)
            late = pool.submit(stranger[what])
        assert (owner.result(MINUTE).status, late.result(MINUTE).status) == (200, 401)
    assert contest.sql("SELECT key FROM public_keys") == []
    assert contest.sql("SELECT pubkeys FROM buckets") == [([],)]


@pytest.mark.parametrize("by_commits", [True, False])
def test_deadlock_is_run_again(tmp_path: Path, contest: Contest, by_commits: bool) -> None:
    store, barrier, tries = FolderStore(tmp_path / "deadlock", fsync=False), Barrier(2), [0]
    databases = [bridge._database for bridge in contest.bridges]
    load = Load(tmp_path, store, 0, time.time, reserve=False)

    def lock_both(names: str, is_first: list[bool], connection: sa.Connection) -> str:
        tries[0] += 1
        lock_name(connection, names[0])
        if is_first.pop():
            barrier.wait(MINUTE)
        lock_name(connection, names[1])
        return names

    def run(database: Database, names: str) -> str:
        work = partial(lock_both, names, [False, True])
        if by_commits:
            return commits_of(database, store).run(work)

        def write() -> str:
            with database.write() as connection:
                return work(connection)

        return load.run(write)

    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = contest.sql(count)
    with ThreadPoolExecutor(2) as threads:
        assert [*threads.map(run, databases, ["ab", "ba"])] == ["ab", "ba"]
    assert tries == [3], "one of the two was ended, and run again"
    end = time.monotonic() + MINUTE
    while contest.sql(count) == before:
        assert time.monotonic() < end  # the server counts it a little later


def test_connection_that_was_closed_is_unavailable_at_each_statement(contest: Contest) -> None:
    database = contest.bridges[0]._database
    end = sa.select(sa.func.pg_terminate_backend(sa.func.pg_backend_pid()))
    with database.read() as connection:
        for statement in end, sa.select(sa.literal(1)):
            with pytest.raises(UnavailableError):
                Prepared(statement).first(connection, {})


@pytest.mark.parametrize("durable", [True, False])
def test_first_transaction_on_a_connection_is_not_that_of_its_check(
    url: str, durable: bool
) -> None:
    locks = sa.text(
        "SELECT count(*) FROM pg_locks"
        " WHERE pid = pg_backend_pid() AND relation = 'installation'::regclass"
    )
    with (
        closing(open_postgres(url, None)) as database,
        database.write(durable=durable) as connection,
    ):
        assert connection.execute(locks).scalar_one() == 0


def test_address_is_mailed_once(contest: Contest) -> None:
    contest.sql("UPDATE users SET mailed = NULL")
    path = f"/users/{contest.alice.email}/reset"
    with contest.locked("SELECT 1 FROM users FOR UPDATE", waiting=2):
        for bridge in contest.bridges:
            assert ask(bridge, "POST", path).status == 200
    for bridge in contest.bridges:
        bridge.close()
    assert contest.sql("SELECT count(*) FROM resets")[0][0] == len(contest.mails) == 1


def test_nonce_is_used_once(contest: Contest) -> None:
    user = contest.alice
    signature = user.key.sign("GET\n/keys\n__nonce=5")
    r, _ = parse_signature(bytes.fromhex(signature))
    lock = "INSERT INTO used_nonces VALUES (%s, 5, %s); DELETE FROM used_nonces WHERE nonce = 5"
    lock = lock.replace("%s", f"'{user.email}'", 1).replace("%s", f"'{r:064x}'")
    tries = [lambda n=n: contest.on(n).ask("GET", "/keys", nonce=5) for n in range(2)]
    assert contest.both(lock, ask=tries) == [200, 401]


def test_nonce_as_in_2016_is_never_smaller(contest: Contest, tmp_path: Path, url: str) -> None:
    with Bridge(tmp_path / "data", database=url, nonce_rule="2016") as bridge:
        user = User(bridge, "alice", known=True)
        assert user.ask("GET", "/keys", nonce=5).status == 200
        raise_it = "UPDATE nonce_floors SET floor = 9"
        assert contest.both(raise_it, ask=[lambda: user.ask("GET", "/keys", nonce=8)]) == [401]


def test_form_of_a_key_has_one_winner(contest: Contest) -> None:
    key, other = Key("shared"), User(contest.bridges[1], "bob")
    its_point = point(bytes.fromhex(key.public)).hex()
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended('pymdc bridge: key {its_point}', 0))"
    tries = [
        lambda: contest.alice.ask("POST", "/keys", {"key": key.public}),
        lambda: other.ask("POST", "/keys", {"key": key.uncompressed}),
    ]
    assert contest.both(lock, ask=tries) == [200, 400]


def test_key_is_registered_and_removed_once(contest: Contest) -> None:
    key, lock = Key("another").public, "SELECT 1 FROM users FOR UPDATE"
    tries = [lambda n=n: contest.on(n).ask("POST", "/keys", {"key": key}) for n in range(2)]
    assert contest.both(lock, ask=tries) == [200, 400]
    tries = [lambda n=n: contest.on(n).ask("DELETE", f"/keys/{key}") for n in range(2)]
    assert contest.both(lock, ask=tries) == [200, 404]


def test_last_key_and_last_bucket_have_one_winner(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "MAX_BUCKETS", 1)
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    lock = "SELECT 1 FROM users FOR UPDATE"
    tries = [lambda n=n: contest.on(n).ask("POST", "/buckets", {}) for n in range(2)]
    assert contest.both(lock, ask=tries) == [200, 403]
    words = [Key(f"key {n}").public for n in range(2)]
    tries = [lambda n=n: contest.on(n).ask("POST", "/keys", {"key": words[n]}) for n in range(2)]
    assert contest.both(lock, ask=tries) == [200, 403]


@pytest.mark.parametrize("change", ["removed = 1", "activation = 'registered again'"])
def test_account_that_is_being_removed_gets_nothing(contest: Contest, change: str) -> None:
    remove = f"UPDATE users SET {change}"
    tries: list[Asking] = [
        lambda: contest.on(0).ask("POST", "/buckets", {}),
        lambda: contest.on(1).ask("POST", "/keys", {"key": Key("another").public}),
    ]
    assert contest.both(remove, ask=tries) == [401, 401]


def test_list_of_a_bucket_keeps_no_removed_key(contest: Contest) -> None:
    key, user = Key("another").public, contest.alice
    user.ask("POST", "/keys", {"key": key})
    bucket = user.bucket(pubkeys=[key])
    tries: list[Asking] = [
        lambda: contest.on(0).ask("PATCH", f"/buckets/{bucket}", {"pubkeys": [user.key.public]}),
        lambda: contest.on(1).ask("DELETE", f"/keys/{key}"),
    ]
    assert contest.both("SELECT 1 FROM users FOR UPDATE", ask=tries) == [200, 200]
    assert user.ask("GET", f"/buckets/{bucket}").json["pubkeys"] == [user.key.public]


def test_list_that_is_emptied_gets_no_key_again(contest: Contest) -> None:
    """The removal of a key reads the list before, and would write what it read."""
    key, user = Key("another").public, contest.alice
    user.ask("POST", "/keys", {"key": key})
    bucket = user.bucket(pubkeys=[key, user.key.public])
    empty = partial(contest.on(0).ask, "PATCH", f"/buckets/{bucket}", {"pubkeys": []})
    remove = partial(contest.on(1).ask, "DELETE", f"/keys/{key}")
    with ThreadPoolExecutor(2) as pool:
        with contest.locked("SELECT 1 FROM buckets FOR UPDATE", waiting=2):
            emptied = pool.submit(empty)
            contest.wait(1)
            removed = pool.submit(remove)
        assert [emptied.result(MINUTE).status, removed.result(MINUTE).status] == [200, 200]
    assert user.ask("GET", f"/buckets/{bucket}").json["pubkeys"] == []


def test_bucket_is_removed_once(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    tries = [lambda n=n: contest.on(n).ask("DELETE", f"/buckets/{bucket}") for n in range(2)]
    assert contest.both("SELECT 1 FROM buckets FOR UPDATE", ask=tries) == [204, 404]


def test_piece_of_a_removal_locks_the_bucket_before_its_files(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    contest.alice.upload(bucket, DATA)
    contest.sql("UPDATE buckets SET removed = 0")
    housekeeper = contest.bridges[0]._housekeeper
    with ThreadPoolExecutor(1) as pool:
        with contest.locked("SELECT 1 FROM buckets FOR UPDATE", waiting=1):
            removing = pool.submit(housekeeper.keep_house)
            contest.wait(1)
            assert len(contest.sql("SELECT 1 FROM files FOR UPDATE SKIP LOCKED")) == 1
        removing.result(MINUTE)
    assert contest.sql("SELECT count(*) FROM buckets")[0][0] == 0


def test_file_is_removed_once(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    path = f"/buckets/{bucket}/files/{contest.alice.upload(bucket, DATA).json['hash']}"
    tries = [lambda n=n: contest.on(n).ask("DELETE", path) for n in range(2)]
    assert contest.both("SELECT 1 FROM buckets FOR UPDATE", ask=tries) == [204, 404]
    assert contest.sql("SELECT used, files FROM buckets") == [(0, 0)]


def test_file_that_is_being_removed_is_not_renamed(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    path = f"/buckets/{bucket}/files/{contest.alice.upload(bucket, DATA).json['hash']}"
    rename = [lambda: contest.alice.ask("PATCH", path, {"filename": "b"})]
    assert contest.both("DELETE FROM files", ask=rename) == [404]


def test_tokens_are_good_once(contest: Contest) -> None:
    user, lock = contest.alice, "SELECT 1 FROM tokens FOR UPDATE"
    bucket = user.bucket()
    stored = user.upload(bucket, DATA).json["hash"]
    path = f"/buckets/{bucket}/files"

    def tries(method: str, path: str, operation: str, body: bytes | None = None) -> list[Asking]:
        headers = upload_headers(user.token(bucket, operation), 3)
        return [partial(ask, bridge, method, path, body, headers) for bridge in contest.bridges]

    assert contest.both(lock, ask=tries("PUT", path, "PUSH", form(b"abc"))) == [200, 401]
    assert contest.both(lock, ask=tries("GET", f"{path}/{stored}", "PULL")) == [200, 401]
    assert contest.both(lock, ask=tries("GET", f"{path}/{stored}/content", "PULL")) == [200, 401]


def test_pointer_is_good_once(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    stored = contest.alice.upload(bucket, b"abc").json["hash"]
    [pointer] = contest.alice.pointers(bucket, stored).json

    def try_at(bridge: Bridge) -> bytes:
        try:
            return pull({**pointer, "channel": bridge.endpoint.replace("http", "ws")})
        except AssertionError as error:
            return b"" if "The supplied token is not accepted" in str(error) else b"?"

    tries = [lambda bridge=bridge: try_at(bridge) for bridge in contest.bridges]
    assert contest.both("SELECT 1 FROM pointers FOR UPDATE", ask=tries) == [b"", b"abc"]


def test_pointers_that_were_being_made_are_no_good_once_their_user_is_disabled(
    contest: Contest,
) -> None:
    bucket = contest.alice.bucket()
    stored = contest.alice.upload(bucket, b"abc").json["hash"]
    contest.alice.pointers(bucket, stored)
    made: list[dict[str, Any]] = []

    def make() -> int:
        reply = contest.on(1).pointers(bucket, stored)
        made.extend(reply.json)
        return reply.status

    disable = "UPDATE users SET disabled = true; DELETE FROM pointers"
    with ThreadPoolExecutor(1) as pool:
        with contest.locked("SELECT 1 FROM transfers FOR UPDATE", waiting=1):
            making = pool.submit(make)
            contest.wait(1)
            contest.sql(disable)
        assert making.result(MINUTE) == 200
    with pytest.raises(AssertionError, match="The supplied token is not accepted"):
        pull(made[0])


def test_expired_pointer_is_counted_back_once(contest: Contest) -> None:
    bucket = contest.alice.bucket()
    stored = contest.alice.upload(bucket, b"abc").json["hash"]
    contest.alice.pointers(bucket, stored)
    contest.sql("UPDATE pointers SET expires = 0")
    tries = [partial(run, bridge._housekeeper._delete_expired) for bridge in contest.bridges]
    contest.both("SELECT 1 FROM pointers FOR UPDATE", ask=tries)
    assert contest.sql("SELECT size FROM transfers") == [(0,)]


def put(bridge: Bridge, user: User, bucket: str, content: bytes) -> Asking:
    """Return an upload, whose token is made now."""
    headers = upload_headers(user.token(bucket, "PUSH"), len(content))
    return partial(ask, bridge, "PUT", f"/buckets/{bucket}/files", form(content), headers)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("whose", ["bucket", "account", "bridge"])
def test_last_room_has_one_winner(
    contest: Contest, tmp_path: Path, url: str, whose: str, isolation: str
) -> None:
    limit, user = 5e-9, contest.alice
    database = url.rpartition("/")[2]
    contest.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'")
    limits = {"bucket": None, "account": None, "bridge": None, whose: limit}
    first = user.bucket(storage=limits["bucket"])
    second = first if whose == "bucket" else user.bucket(storage=None)
    name = {"account": f"room of {user.email}", "bridge": "room of all"}.get(whose)
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended('pymdc bridge: {name}', 0))"
    lock = lock if name else "SELECT 1 FROM buckets FOR UPDATE"

    def bridge() -> Bridge:
        each, everybody = limits["account"], limits["bridge"]
        return Bridge(tmp_path / "data", database=url, user_limit=each, storage_limit=everybody)

    with bridge() as one, bridge() as other:
        tries = [put(one, user, first, b"abc"), put(other, user, second, b"def")]
        assert contest.both(lock, ask=tries) == [200, 413]
    contest.sql(f"ALTER DATABASE {database} RESET default_transaction_isolation")


def test_last_room_is_not_for_an_upload_for_which_nothing_was_reserved(
    contest: Contest, tmp_path: Path, url: str
) -> None:
    """It has the size of a file of its bucket, and might have been that file."""

    def wait_for_uploads(number: int) -> None:
        end = time.monotonic() + MINUTE
        while contest.sql("SELECT count(*) FROM uploads") != [(number,)]:
            assert time.monotonic() < end

    def second() -> Reply:
        wait_for_uploads(1)
        return upload_in_halves(user, buckets[1], b"ghi", 100, partial(contest.wait, 1))

    with Bridge(tmp_path / "data", database=url, user_limit=9e-9) as bridge:
        user = User(bridge, "alice", known=True)
        buckets = [user.bucket(storage=None) for _ in range(2)]
        for bucket, content in zip(buckets, (b"abc", b"def"), strict=True):
            assert user.upload(bucket, content).status == 200
        # 6 of 9 are used, and the first reserves the rest. It has inserted its file when it waits
        # for this shard; only then does the second come to its end.
        row = f"INSERT INTO shards (hash, object, size) VALUES ('{file_hash(b'ghi')}', '', 3)"
        lock = f"{row}; DELETE FROM shards WHERE object = ''"
        both_began = partial(wait_for_uploads, 2)
        first = partial(upload_in_halves, user, buckets[0], b"ghi", 100, both_began)
        assert contest.both(lock, ask=[first, second]) == [200, 413]
        assert [len(user.ask("GET", f"/buckets/{id}/files").json) for id in buckets] == [2, 1]


def test_same_content_is_stored_once(contest: Contest, tmp_path: Path) -> None:
    bucket = contest.alice.bucket()
    tries = [lambda n=n: contest.on(n).upload(bucket, DATA) for n in range(2)]
    assert contest.both("SELECT 1 FROM buckets FOR UPDATE", ask=tries) == [200, 200]
    assert contest.sql("SELECT used, files FROM buckets") == [(len(DATA), 1)]
    assert number_of_objects(tmp_path / "data") == 3


def test_lost_shard_is_replaced_once(contest: Contest, tmp_path: Path) -> None:
    user = contest.alice
    first, second = user.bucket(), user.bucket()
    stored = user.upload(user.bucket(), b"abc").json["hash"]
    for path in (tmp_path / "data" / "shards").iterdir():
        if path.name != "installation":
            path.unlink()
    tries: list[Asking] = [
        lambda: contest.on(0).upload(first, b"abc"),
        lambda: contest.on(1).upload(second, b"abc"),
    ]
    lock = "SELECT 1 FROM shards FOR NO KEY UPDATE"
    assert contest.both(lock, ask=tries) == [200, 200]
    assert number_of_objects(tmp_path / "data") == 1
    assert user.download(first, stored) == user.download(second, stored) == b"abc"


def test_object_that_is_about_to_replace_a_lost_one_is_not_set_aside(
    contest: Contest, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is stored already, and the row of its shard still names the lost object."""
    bucket, second = contest.alice.bucket(), contest.alice.bucket()
    stored = contest.alice.upload(bucket, b"abc").json["hash"]
    for path in (tmp_path / "data" / "shards").iterdir():
        if path.name != "installation":
            path.unlink()
    with ThreadPoolExecutor(1) as pool:
        with contest.locked("SELECT 1 FROM shards FOR NO KEY UPDATE", waiting=1):
            healed = pool.submit(contest.on(1).upload, second, b"abc")
            contest.wait(1)
            done = admin_of(tmp_path / "data", capsys, "--database", url)("verify", "--repair")
            assert "1 object is damaged" in done.text
        assert healed.result(MINUTE).status == 200
    assert contest.alice.download(bucket, stored) == b"abc"
    assert number_of_objects(tmp_path / "data") == 1
    assert contest.sql("SELECT count(*) FROM uploads") == [(0,)]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM uploads", f"UPDATE uploads SET started = started - {UPLOAD_LIFETIME + MINUTES}"],
)
def test_upload_whose_reservation_is_gone_or_too_old_is_refused(
    contest: Contest, tmp_path: Path, change: str
) -> None:
    bucket = contest.alice.bucket()
    reserved = "SELECT count(*) FROM uploads"
    headers = upload_headers(contest.alice.token(bucket, "PUSH"), len(DATA))
    headers["Content-Length"] = str(len(form(DATA)))

    def body() -> Iterator[bytes]:
        yield form(DATA)[:1500]
        while contest.sql(reserved)[0][0] == 0:
            pass
        contest.sql(change)
        yield form(DATA)[1500:]

    path = f"/buckets/{bucket}/files"
    assert ask(contest.bridges[0], "PUT", path, body(), headers).status == 408
    assert number_of_objects(tmp_path / "data") == 0


def test_reservation_that_a_killed_bridge_left_ends_after_half_a_day(contest: Contest) -> None:
    now = round(time.time() * 1000)
    for name, started in ("old", now - UPLOAD_LIFETIME - MINUTES), ("young", now):
        contest.sql("INSERT INTO uploads VALUES (%s, 'a bucket', 5, %s)", name, started)
    contest.bridges[0]._housekeeper.keep_house()
    assert contest.sql("SELECT id FROM uploads") == [("young",)]


def test_upload_to_a_bucket_that_is_being_removed_is_refused(
    contest: Contest, tmp_path: Path
) -> None:
    bucket = contest.alice.bucket()
    remove = "UPDATE buckets SET removed = 1"
    assert contest.both(remove, ask=[lambda: contest.alice.upload(bucket, DATA)]) == [404]
    assert number_of_objects(tmp_path / "data") == 0


def test_shard_that_an_upload_begins_to_need_is_not_removed(
    contest: Contest, tmp_path: Path
) -> None:
    user = contest.alice
    first, second = user.bucket(), user.bucket()
    stored = user.upload(first, b"abc").json["hash"]
    upload = (
        "WITH one AS (INSERT INTO files (bucket, hash, filename, mimetype, size)"
        " VALUES (%s, %s, '', '', 3) RETURNING number)"
        " INSERT INTO file_shards SELECT number, 0, %s FROM one"
    )
    remove = [lambda: user.ask("DELETE", f"/buckets/{first}/files/{stored}")]
    assert contest.both(upload, second, stored, stored, ask=remove) == [204]
    assert user.download(second, stored) == b"abc"
    assert number_of_objects(tmp_path / "data") == 1


def test_shard_that_an_upload_has_found_is_locked_until_the_file_refers_to_it(
    contest: Contest,
) -> None:
    contest.alice.upload(contest.alice.bucket(), DATA)
    bucket = contest.alice.bucket()
    with ThreadPoolExecutor(1) as pool:
        with contest.locked("LOCK TABLE file_shards IN SHARE MODE", waiting=1):
            uploading = pool.submit(contest.alice.upload, bucket, DATA)
            contest.wait(1)
            assert contest.sql("SELECT hash FROM shards FOR UPDATE SKIP LOCKED") == []
        assert uploading.result(MINUTE).status == 200


def test_file_that_is_removed_meanwhile_has_no_empty_list_of_pointers(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, find = contest.alice.bucket(), files.requested_file
    stored = contest.alice.upload(bucket, DATA).json["hash"]

    def find_and_remove(*arguments: Any) -> Any:
        found = find(*arguments)
        assert contest.on(1).ask("DELETE", f"/buckets/{bucket}/files/{stored}").status == 204
        return found

    monkeypatch.setattr(files, "requested_file", find_and_remove)
    assert contest.alice.pointers(bucket, stored).status == 404
    assert contest.sql("SELECT sum(size) FROM transfers") == [(None,)]


def test_numbers_beyond_two_to_the_31_are_taken(contest: Contest) -> None:
    for table in "files", "buckets", "public_keys":
        contest.sql(f"ALTER SEQUENCE {table}_number_seq RESTART {2**31 + 5}")
    user = contest.alice
    bucket = user.bucket()
    hashes = [user.upload(bucket, content).json["hash"] for content in (DATA, b"abc")]
    listed = user.ask("GET", f"/buckets/{bucket}/files", query=f"after={hashes[0]}").json
    assert [file["hash"] for file in listed] == hashes[1:]
    assert user.download(bucket, hashes[0]) == DATA
    assert user.ask("POST", "/keys", {"key": Key("another").public}).status == 200
    assert user.ask("DELETE", f"/buckets/{bucket}").status == 204
    assert file_hash(DATA) == hashes[0]


def test_database_is_created_by_one_of_several_bridges(tmp_path: Path, url: str) -> None:
    faults: list[Exception] = []

    def start() -> None:
        try:
            with Bridge(tmp_path / "data", database=url):
                pass
        except OSError as error:
            faults.append(error)

    threads = [Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
