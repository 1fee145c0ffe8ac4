"""A database and a store that do not answer for some time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import IncompleteRead
from pathlib import Path

import pytest
import sqlalchemy as sa
from commit_proxy import CommitProxy, error
from plain_client import DATA, Clock, User, ask, form, upload_headers
from postgres import Postgres, Server
from processes import MINUTE
from stored_objects import number_of_objects

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge, housekeeping
from pymdc.bridge.routes import files
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.removal import remove_piece
from pymdc.bridge.storage.servers import open_postgres

postgres_module = pytest.importorskip("pymdc.bridge.storage.postgres", exc_type=ImportError)


def test_bridge_outlasts_a_kill_of_its_database(
    own_postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = own_postgres.new_database()
    with Bridge(tmp_path / "data", database=database, metrics_token="x") as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        stored = alice.upload(bucket, b"abc").json["hash"]
        own_postgres.kill()
        for reply in alice.ask("GET", "/keys"), alice.ask("POST", "/buckets", {}):
            assert (reply.status, reply.headers["retry-after"]) == (503, "2"), reply.body
        assert ask(bridge, "GET", "/ready").status == 503
        assert ask(bridge, "GET", "/health").status == 200
        metrics = ask(bridge, "GET", "/metrics", None, {"Authorization": "Bearer x"})
        assert (metrics.status, b"stored_bytes" in metrics.body) == (200, False)
        own_postgres.start()
        assert ask(bridge, "GET", "/ready").status == 200
        assert alice.download(bucket, stored) == b"abc"
        assert alice.upload(bucket, b"abcd").status == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("command", [False, True])
def test_server_knows_the_limits_of_a_bridge_and_of_a_command(url: str, command: bool) -> None:
    names = "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"
    with closing(open_postgres(url, None, command=command)) as database:
        with database.write() as connection:
            limits = [connection.execute(sa.text(f"SHOW {name}")).scalar() for name in names]
    assert limits == (["0", "10s", "0"] if command else ["30s", "10s", "30s"])


def test_bridge_needs_no_second_try_after_a_restart_of_its_database(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    with Bridge(tmp_path / "data", database=own_postgres.new_database()) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        for end in own_postgres.stop, own_postgres.kill:
            end()
            own_postgres.start()
            stored = alice.upload(bucket, b"abc")
            assert stored.status == 200
            assert alice.download(bucket, stored.json["hash"]) == b"abc"
            assert alice.ask("GET", "/buckets").status == 200


def test_bridge_outlasts_a_database_that_stands_still(
    own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "HUNG_SECONDS", 1.0)
    monkeypatch.setattr(postgres_module, "CONNECT_SECONDS", 2)
    with Bridge(tmp_path / "data", database=own_postgres.new_database()) as bridge:
        alice = User(bridge, "alice")
        assert alice.ask("GET", "/keys").status == 200  # by connections that are kept
        own_postgres.pause()
        with ThreadPoolExecutor(20) as pool:
            replies = pool.map(lambda _: alice.ask("GET", "/keys"), range(40))
            answers = {(reply.status, reply.headers.get("retry-after")) for reply in replies}
        own_postgres.resume()
        assert answers == {(503, "2")}
        while alice.ask("GET", "/keys").status == 503:
            pass
        assert alice.ask("POST", "/buckets", {}).status == 200


@pytest.mark.parametrize(
    ("constant", "statement"),
    [("LOCK_SECONDS", "SELECT 1 FROM users FOR UPDATE"), ("STATEMENT_SECONDS", "LOCK TABLE users")],
)
def test_lock_that_is_held_too_long_is_503(
    tmp_path: Path,
    postgres: Server,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    constant: str,
    statement: str,
) -> None:
    monkeypatch.setattr(postgres_module, constant, 1)
    with Bridge(tmp_path / "data", database=url) as bridge:
        alice = User(bridge, "alice")
        with postgres.connect(url.rpartition("/")[2]) as connection, connection.transaction():
            connection.execute(statement.encode())
            reply = alice.ask("POST", "/buckets", {})
            assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        assert alice.ask("POST", "/buckets", {}).status == 200


@pytest.fixture
def through_proxy(
    tmp_path: Path, postgres: Server, url: str
) -> Iterator[tuple[CommitProxy, User, str]]:
    """Give a proxy before PostgreSQL, a user of a bridge behind it, and a bucket."""
    with CommitProxy(postgres.port) as proxy:
        through = url.replace(str(postgres.port), str(proxy.port))
        with Bridge(tmp_path / "data", database=through, shard_size=1000) as bridge:
            alice = User(bridge, "alice")
            yield proxy, alice, alice.bucket()


@pytest.mark.parametrize("committed", [True, False])
def test_upload_whose_commit_is_in_doubt(
    tmp_path: Path,
    postgres: Server,
    url: str,
    through_proxy: tuple[CommitProxy, User, str],
    committed: bool,
) -> None:
    proxy, alice, bucket = through_proxy
    proxy.arm(mentions="INTO file_shards", sent=committed)
    assert alice.upload(bucket, DATA).status == 503
    check_upload(alice, bucket, tmp_path / "data", committed)
    assert alice.upload(bucket, DATA).status == 200
    assert alice.download(bucket, file_hash(DATA)) == DATA
    alice.bridge.close()
    with postgres.connect(url.rpartition("/")[2]) as connection:
        assert connection.execute("SELECT * FROM uploads").fetchall() == []


@pytest.mark.parametrize("committed", [True, False])
def test_upload_whose_commit_ends_with_an_error_that_nobody_expects(
    tmp_path: Path, through_proxy: tuple[CommitProxy, User, str], committed: bool
) -> None:
    """As poolers tell that they have lost the server, perhaps after it committed."""
    proxy, alice, bucket = through_proxy
    told = error("58000", "error communicating with the server")
    proxy.arm(mentions="INTO file_shards", sent=committed, told=told)
    assert alice.upload(bucket, DATA).status == 500
    check_upload(alice, bucket, tmp_path / "data", committed)


def check_upload(user: User, bucket: str, data: Path, committed: bool) -> None:
    """Check that `DATA` is stored whole, or that nothing of it is."""
    listed = user.ask("GET", f"/buckets/{bucket}/files").json
    assert len(listed) == committed
    assert number_of_objects(data) == (3 if committed else 0)
    for file in listed:
        assert user.download(bucket, file["hash"]) == DATA


@pytest.mark.parametrize("committed", [True, False])
def test_removal_whose_commit_is_in_doubt(
    tmp_path: Path, through_proxy: tuple[CommitProxy, User, str], committed: bool
) -> None:
    proxy, alice, bucket = through_proxy
    stored = alice.upload(bucket, DATA).json["hash"]
    path = f"/buckets/{bucket}/files/{stored}"
    proxy.arm(mentions="DELETE FROM shards", sent=committed)
    assert alice.ask("DELETE", path).status == 503
    assert number_of_objects(tmp_path / "data") == 3, "deleted by the sweep if no row needs them"
    assert alice.ask("DELETE", path).status == (404 if committed else 204)


@pytest.mark.parametrize("committed", [True, False])
def test_pointers_whose_commit_is_in_doubt_are_given_back_at_most_once(
    tmp_path: Path, postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    def count_and_arm(made: files._Pointers, added: list[dict[str, object]]) -> None:
        count(made, added)
        if made.left:
            proxy.arm(mentions=bucket, sent=committed)

    count, clock = files._Pointers.count, Clock()
    with CommitProxy(postgres.port) as proxy:
        through = url.replace(str(postgres.port), str(proxy.port))
        with Bridge(tmp_path / "data", database=through, shard_size=1, clock=clock) as bridge:
            alice = User(bridge, "alice")
            bucket = alice.bucket()
            stored = alice.upload(bucket, DATA[:600]).json["hash"]
            monkeypatch.setattr(files._Pointers, "count", count_and_arm)
            with pytest.raises(IncompleteRead):
                alice.pointers(bucket, stored)
            clock.seconds += 1000
            bridge._housekeeper.keep_house()
            with postgres.connect(url.rpartition("/")[2]) as connection:
                assert connection.execute("SELECT * FROM pointers").fetchall() == []
                [(left,)] = connection.execute("SELECT size FROM transfers").fetchall()
    assert left == (0 if committed else 100), "else more could be pulled than is allowed"


def test_object_of_a_removal_that_the_database_forgets_is_not_used_again(
    own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is killed between the rows and the objects, and an upload finds those rows."""
    monkeypatch.setattr(housekeeping, "FIRST_LOOK_SECONDS", MINUTE)
    url = own_postgres.new_database()
    with own_postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # it writes late
        connection.execute("SELECT pg_reload_conf()")
    with Bridge(tmp_path / "data", database=url) as bridge:
        alice = User(bridge, "alice")
        kept, removed = alice.bucket(), alice.bucket()
        stored = alice.upload(removed, b"abc").json["hash"]
        with own_postgres.connect(url.rpartition("/")[2]) as connection:
            connection.execute("UPDATE buckets SET removed = 1 WHERE id = %s", [removed])

        class Slow(FolderStore):
            def delete(self, names: Iterable[str]) -> None:
                own_postgres.kill()
                own_postgres.start()
                assert alice.upload(kept, b"abc").status == 200
                super().delete(names)

        slow = Slow(tmp_path / "data" / "shards", fsync=False)
        assert not remove_piece(bridge._database, slow, removed)
        assert alice.download(kept, stored) == b"abc"


def test_upload_that_was_cut_off_takes_no_room_for_long(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    database = own_postgres.new_database()
    with Bridge(tmp_path / "data", database=database, shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket, body = alice.bucket(storage=3e-6), form(DATA)
        headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
        headers["Content-Length"] = str(len(body))

        def sent() -> Iterator[bytes]:
            yield body[:1500]
            while not number_of_objects(tmp_path / "data"):
                pass
            own_postgres.kill()
            yield body[1500:]

        assert ask(bridge, "PUT", f"/buckets/{bucket}/files", sent(), headers).status == 503
        own_postgres.start()
        bridge._housekeeper.keep_house()
        assert number_of_objects(tmp_path / "data") == 0
        assert alice.upload(bucket, DATA).status == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("127.0.0.1", "no-host.invalid"), "no-host.invalid"),
        (lambda url: f"{url}_of_nobody", "does not exist"),
        (lambda url: url.replace("pymdc@", "nobody@"), "nobody"),
        (lambda url: re.sub(r":\d+/", ":1/", url), "refused"),
        (lambda url: f"{url}_of_nobody?password=the-secret", "does not exist"),
    ],
)
def test_database_that_cannot_be_used_is_told_in_a_line(
    tmp_path: Path, url: str, change: Callable[[str], str], reason: str
) -> None:
    with pytest.raises(OSError, match=reason) as caught:
        with Bridge(tmp_path, database=change(url), database_password="the-secret"):
            pass
    assert "\n" not in str(caught.value)
    assert "the-secret" not in str(caught.value)
    assert "did not answer" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_that_does_not_hold_every_name_is_refused(
    tmp_path: Path, postgres: Server, encoding: str
) -> None:
    told = f"can't be used: its encoding is {encoding}; expected UTF8"
    with pytest.raises(OSError, match=told):
        with Bridge(tmp_path, database=postgres.new_database(encoding)):
            pass


def test_names_are_stored_whatever_encoding_the_environment_names(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Bridge(tmp_path / "data", database=url) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket(name="☃")
        assert alice.ask("GET", f"/buckets/{bucket}").json["name"] == "☃"


def test_bridge_is_not_ready_while_its_database_is_a_standby(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bridge(tmp_path / "data", database=url) as bridge:
        assert ask(bridge, "GET", "/ready").status == 200
        monkeypatch.setattr(postgres_module, "_IS_STANDBY", sa.select(sa.true()))
        assert ask(bridge, "GET", "/ready").status == 503


def test_database_of_another_program_is_refused(
    tmp_path: Path, postgres: Server, new_url: str
) -> None:
    with postgres.connect(new_url.rpartition("/")[2]) as connection:
        connection.execute("CREATE TABLE users (name text)")
    bridge = Bridge(tmp_path, database=new_url)
    for open_it in bridge.__enter__, lambda: open_postgres(new_url, None):
        with pytest.raises(OSError, match=r"tables of another program, such as users; expected an"):
            open_it()
