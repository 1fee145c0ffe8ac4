"""``admin export``, ``import``, ``close`` and ``reopen``: from a folder to servers, and back."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import postgres
import pytest
import sqlalchemy as sa
from administration import Admin, Done, admin_of
from churn import load
from distributed import Distributed, Servers
from plain_client import DATA, PASSWORD, User, ask, basic, form, upload_headers

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.admin import closing_down, export, imports, rows
from pymdc.bridge.admin.rows import MOVED
from pymdc.bridge.admin.storage import Storage
from pymdc.bridge.errors import StoreError
from pymdc.bridge.settings import MAX_NAME
from pymdc.bridge.storage import s3_store
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.disk import DiskFullError
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.installation import check_installation
from pymdc.bridge.storage.objects import INSTALLATION, ObjectStore
from pymdc.bridge.storage.s3_store import S3Store
from pymdc.bridge.storage.servers import open_postgres, shown_url
from pymdc.bridge.storage.tables import metadata


@pytest.fixture
def several(
    tmp_path: Path, distributed_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> Distributed:
    """Give an empty database and an empty store; the keys of the store are in the environment."""
    for name, value in distributed_servers.environment.items():
        monkeypatch.setenv(name, value)
    return Distributed(tmp_path / "several", distributed_servers)


@pytest.fixture
def there(several: Distributed, capsys: pytest.CaptureFixture[str]) -> Admin:
    """Return a function that runs a command on the servers."""
    return admin_of(several.data, capsys, *several.options()[2:])


@pytest.fixture
def here(data: Path, capsys: pytest.CaptureFixture[str]) -> Admin:
    """Return a function that runs a command on the folder."""
    return admin_of(data, capsys)


def failed(done: Done) -> str:
    assert (done.status, done.text) == (1, ""), done
    assert done.errors.count("\n") == 1, done.errors
    return done.errors.removeprefix("pymdc.bridge admin: ").strip()


def done_well(done: Done) -> str:
    assert (done.status, done.errors) == (0, "")
    return done.text


def stored(user: User, bucket: str, number: int, name: str = "a.bin") -> str:
    """Upload a file of three shards; return its hash."""
    content = random.Random(number).randbytes(2500)
    return str(user.upload(bucket, content, name).json["hash"])


class Filled:
    """A bridge with all kinds of rows; what its users see, and a request that was sent."""

    def __init__(self, bridge: Bridge) -> None:
        self.alice = User(bridge, "alice")
        self.bob = User(bridge, "bob")
        self.bucket = self.alice.bucket(name="Bilder für Ömi", storage=5, transfer=0.5)
        self.other = self.alice.bucket()
        self.files = [stored(self.alice, self.bucket, number, f"{number}.bin") for number in (1, 2)]
        self.alice.upload(self.other, DATA)
        chance = random.Random(0)
        longest = "".join(chr(chance.randrange(0x10000, 0x1F000)) for _ in range(MAX_NAME))
        stored(self.alice, self.other, 1, longest)
        stored(self.bob, self.bob.bucket(pubkeys=[self.alice.key.public]), 30, "drei ☃.bin")
        self.alice.download(self.bucket, self.files[0])
        gone = self.alice.bucket()
        assert self.alice.ask("DELETE", f"/buckets/{gone}").status == 204
        fields = {"email": "carol@example.com", "password": PASSWORD}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
        self.activation = bridge.activation_key("carol@example.com")
        self.nonce = next(User.nonces)
        assert self.alice.ask("GET", "/keys", nonce=self.nonce).status == 200

    def seen(self, bridge: Bridge) -> dict[str, Any]:
        """Return what the users see at *bridge*."""
        self.alice.bridge = self.bob.bridge = bridge
        found: dict[str, Any] = {}
        for user in self.alice, self.bob:
            found[f"keys of {user.email}"] = user.ask("GET", "/keys").json
            found[f"buckets of {user.email}"] = listed = user.ask("GET", "/buckets").json
            usage = user.ask("GET", "/usage").json
            found[f"usage of {user.email}"] = {
                name: value for name, value in usage.items() if name != "disk_free"
            }
            for bucket in listed:
                files = user.ask("GET", f"/buckets/{bucket['id']}/files").json
                found[f"files of {bucket['id']}"] = files
                for file in files:
                    path = f"/buckets/{bucket['id']}/files/{file['hash']}/content"
                    headers = basic(user.email, PASSWORD)
                    reply = ask(bridge, "GET", path, None, headers)
                    found[f"content of {bucket['id']} {file['hash']}"] = reply.status, reply.body
        return found

    def check_requests(self, bridge: Bridge) -> None:
        """Check that *bridge* refuses a replay, and goes on where the other one stopped."""
        self.alice.bridge = bridge
        assert self.alice.ask("GET", "/keys", nonce=self.nonce).status == 401
        by_password = ask(bridge, "GET", "/keys", headers=basic(self.bob.email, PASSWORD))
        assert by_password.status == 200
        before = [row["id"] for row in self.alice.ask("GET", "/buckets").json]
        new = self.alice.bucket()
        assert [row["id"] for row in self.alice.ask("GET", "/buckets").json] == [*before, new]
        content = self.alice.upload(new, DATA).json["hash"]
        assert self.alice.download(new, content) == DATA
        assert self.alice.ask("DELETE", f"/buckets/{new}").status == 204


def test_bridge_moves_to_servers_and_back(
    data: Path,
    here: Admin,
    there: Admin,
    several: Distributed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here_again = tmp_path / "again"
    with Bridge(data, shard_size=1000) as bridge:
        filled = Filled(bridge)
        before = filled.seen(bridge)
        prepared = done_well(there("import", "--prepare", data))
        assert "copied 12 objects, 10 KB, in " in prepared
        filled.files.append(stored(filled.alice, filled.bucket, 4, "4.bin"))
        before = filled.seen(bridge)
    assert done_well(here("close")).startswith(f"Closed {data}: ")
    value = there("import", data, "--json").json
    assert (value["copied"], value["there"], value["closed"]) == (3, 12, True)
    assert (value["users"], value["files"], value["rows"]["invitations"]) == (3, 6, 0)
    with several.bridge(shard_size=1000) as bridge:
        assert filled.seen(bridge) == before
        filled.check_requests(bridge)
        assert ask(bridge, "GET", f"/activations/{filled.activation}").status == 200
        before = filled.seen(bridge)
        exported = done_well(there("export", here_again))
        assert "Copied 15 objects, " in exported
        assert "It is not closed" in exported
        filled.files.append(stored(filled.alice, filled.bucket, 5, "5.bin"))
        before = filled.seen(bridge)
    assert done_well(there("verify")).endswith("Everything is whole.\n")
    assert done_well(there("close")).startswith("Closed postgresql+psycopg://")
    value = there("export", here_again, "--json").json
    assert (value["copied"], value["closed"]) == (3, True)
    assert done_well(admin_of(here_again, capsys)("verify")).endswith("Everything is whole.\n")
    with Bridge(here_again, shard_size=1000) as bridge:
        assert filled.seen(bridge) == before
        filled.check_requests(bridge)
    restored = tmp_path / "restored"
    # The export that was served is a bridge's folder now, so it is no backup for export any more.
    assert "the data folder of a bridge" in failed(there("export", here_again))
    done_well(admin_of(restored, capsys)("restore", here_again))
    with Bridge(restored, shard_size=1000) as bridge:
        assert filled.seen(bridge) == before


def test_every_table_moves_except_what_is_good_for_minutes() -> None:
    moved, left = {table.name for table in MOVED}, {"tokens", "pointers", "resets", "uploads"}
    assert moved | left | {"installation"} == {*metadata.tables}
    assert not moved & left


@pytest.fixture
def filled(data: Path) -> Filled:
    """Fill the folder; no bridge runs on it."""
    with Bridge(data, shard_size=1000) as bridge:
        return Filled(bridge)


@contextmanager
def breaking(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int) -> Iterator[None]:
    """Break the command off at a *call* of a function, and at each one after that."""
    numbers, real = itertools.count(1), getattr(where, name)

    def breaks(*arguments: Any, **options: Any) -> Any:
        if next(numbers) >= call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, breaks)
        yield


@pytest.mark.parametrize(
    ("where", "name", "call", "there_already"),
    [
        (S3Store, "set_installation", 1, 0),
        (S3Store, "put", 2, 0),  # the first one is the id
        (S3Store, "put", 7, None),
        (imports, "_compare_objects", 1, 12),
        (imports, "first_filled", 2, 12),
        (rows, "_insert", 5, 12),
        (rows, "_count_on", len(MOVED), 12),
    ],
)
def test_import_that_is_broken_off_goes_on(
    data: Path,
    filled: Filled,
    there: Admin,
    several: Distributed,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    call: int,
    there_already: int | None,
) -> None:
    with breaking(monkeypatch, where, name, call):
        assert failed(there("import", data)) == "interrupted"
    assert several.rows("users") == several.rows("files") == 0
    with pytest.raises(OSError, match="import into it is not complete"), several.bridge():
        pass
    for command in ["users", "invite"], ["close"], ["reopen"], ["export", data.parent / "copy"]:
        assert failed(there(*command)).endswith("is not complete: give admin import again")
    value = there("import", data, "--json").json
    assert value["copied"] + value["there"] == len(several.objects()) == 12
    assert value["there"] == there_already if there_already is not None else value["there"] > 0
    with Bridge(data, shard_size=1000) as bridge:
        before = filled.seen(bridge)
    with several.bridge(shard_size=1000) as bridge:
        assert filled.seen(bridge) == before
        filled.check_requests(bridge)


@pytest.mark.parametrize(
    ("where", "name", "call"),
    [(FolderStore, "put", 1), (FolderStore, "put", 7), (rows, "_insert", 5), (export, "_text", 1)],
)
def test_export_that_is_broken_off_goes_on_and_leaves_the_one_before(
    data: Path,
    filled: Filled,
    here: Admin,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    call: int,
) -> None:
    copy = tmp_path / "copy"
    for repeated in False, True:
        before = (copy / "metadata.sqlite").read_bytes() if repeated else b""
        with Bridge(data, shard_size=1000) as filled.alice.bridge:
            for number in range(100, 105) if repeated else ():
                stored(filled.alice, filled.bucket, number)
        with breaking(monkeypatch, where, name, call):
            assert failed(here("export", copy)) == "interrupted"
        if repeated and where is not export:
            assert (copy / "metadata.sqlite").read_bytes() == before
        value = here("export", copy, "--json").json
        assert value["objects"] == 27 if repeated else 12
    assert set(os.listdir(copy)) == {"backup.lock", "metadata.sqlite", "shards"}
    assert done_well(admin_of(copy, capsys)("verify")).endswith("Everything is whole.\n")


def test_import_that_is_killed_goes_on(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    arguments = ["-m", "pymdc.bridge", "admin", "import", str(data), *several.options()]
    with subprocess.Popen([sys.executable, *arguments]) as process:
        while not several.objects():
            assert process.poll() is None
        process.kill()
    assert several.rows("users") == 0
    value = there("import", data, "--json").json
    assert (value["there"] > 0, value["objects"]) == (True, len(several.objects()))


def test_object_that_is_in_the_store_in_part_is_copied_again(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    there("import", "--prepare", data)
    first, second = several.objects()[:2]
    several.write(first, b"half")
    several.write("f" * 32, b"of a file that was deleted since")
    several.remove(second)
    assert there("import", data, "--json").json["copied"] == 2
    assert len(several.objects()) == 12
    assert done_well(there("verify")).endswith("Everything is whole.\n")


def test_damaged_object_is_named_and_the_rest_is_imported_by_force(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    names = sorted(path.name for path in (data / "shards").iterdir() if len(path.name) == 32)
    (data / "shards" / names[0]).unlink()
    (data / "shards" / names[1]).write_bytes(bytes(1000))
    for options in ["--prepare"], []:
        done = there("import", data, *options)
        assert (done.status, several.rows("users")) == (1, 0)
        assert f"  {names[0]}  missing\n" in done.text
        assert f"  {names[1]}  wrong " in done.text
    assert done.text.startswith(f"No rows are imported: 2 objects of {data} cannot be used.\n")
    assert done.text.endswith("--force imports everything else.\n")
    done = there("import", data, "--force")
    assert (done.status, "Without 2 objects:" in done.text) == (1, True)
    assert len(several.objects()) == 10
    with several.bridge(shard_size=1000) as bridge:
        filled.alice.bridge = filled.bob.bridge = bridge
        for number in 1, 2, 3, 30:
            stored(filled.alice, filled.other, number)
        for bucket, name in ((filled.bucket, filled.files[0]), (filled.bucket, filled.files[1])):
            assert file_hash(filled.alice.download(bucket, name)) == name
    assert done_well(there("verify")).endswith("Everything is whole.\n")


def test_damaged_object_is_not_exported_and_named(
    data: Path, filled: Filled, here: Admin, tmp_path: Path
) -> None:
    first = min(path for path in (data / "shards").iterdir() if len(path.name) == 32)
    first.write_bytes(b"")
    done = here("export", tmp_path / "copy")
    assert (done.status, "1 object could not be copied:" in done.text) == (1, True)
    assert f"  {first.name}  wrong size" in done.text


def test_backup_is_not_replaced_by_an_export(
    data: Path, filled: Filled, here: Admin, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    done_well(here("backup", copy))
    assert (
        failed(here("export", copy)) == f"{copy} is a backup; an export needs a folder of its own"
    )


def test_target_has_to_be_empty(
    data: Path,
    filled: Filled,
    there: Admin,
    several: Distributed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    with Bridge(other) as bridge:
        User(bridge, "dave")
    several.write("0" * 32, b"an object")
    assert failed(there("import", data)) == "the store is not empty: it has objects"
    several.remove("0" * 32)
    done_well(there("import", "--prepare", data))
    assert "the import of another bridge into " in failed(there("import", other))
    elsewhere = [several.options()[2], f"{several.options()[3]}-elsewhere"]
    run = admin_of(several.data, capsys)
    S3Store(elsewhere[1].partition("=")[2], os.environ).set_installation("of another")
    assert failed(run("import", data, *elsewhere)) == "the import was begun with another store"
    left = re.escape(str(data / "outbox"))
    assert re.search(rf"\nLeft in {left}: \d mails\.\n", done_well(there("import", data)))
    shown = shown_url(several.settings["database"])
    for source in data, other:
        refused = failed(there("import", source))
        assert f"the database {shown} is not empty: it has " in refused
        assert refused.endswith(
            "; if an import was broken off there, it had written all rows before"
        )
    with several.bridge(shard_size=1000) as bridge:
        filled.check_requests(bridge)


def test_import_is_one_at_a_time(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    url = several.settings["database"]
    with closing(open_postgres(url, None, command=True)) as database:
        with database.exclusive("import"):
            refused = failed(there("import", data))
        assert refused == f"another import into {shown_url(url)} is running"
        assert several.objects() == []
        done_well(there("import", data))
    with several.bridge(shard_size=1000) as bridge:
        filled.check_requests(bridge)


def test_bridge_that_starts_while_it_is_being_closed_is_told(
    there: Admin, several: Distributed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_and_set(storage: Storage, *, is_closed: bool) -> bool:
        if is_closed:
            running.enter_context(several.bridge())
        return set_(storage, is_closed=is_closed)

    with several.bridge():
        pass
    set_ = closing_down._set
    monkeypatch.setattr(closing_down, "_set", start_and_set)
    with ExitStack() as running:
        assert "a bridge is running on " in failed(there("close"))
    with several.bridge():
        pass


def test_export_into_what_a_broken_off_backup_left_has_an_id_of_its_own(
    there: Admin, several: Distributed, tmp_path: Path
) -> None:
    with several.bridge():
        pass
    its = S3Store(several.settings["store"], os.environ).installation()
    assert its is not None
    copied = FolderStore(tmp_path / "copy" / "shards", fsync=False)
    copied.set_installation(its)
    done_well(there("export", tmp_path / "copy"))
    assert copied.installation() not in (None, its)


def test_store_of_another_database_is_not_imported_into(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    S3Store(several.options()[3].partition("=")[2], os.environ).set_installation("of another")
    assert "the store belongs to another database: its id is of another" in failed(
        there("import", data)
    )


def test_store_that_was_of_the_database_before_an_import_is_so_no_more(
    data: Path, filled: Filled, there: Admin, several: Distributed, tmp_path: Path
) -> None:
    """A new bridge was started with a wrong store first."""
    wrong = Bridge(tmp_path / "wrong", database=several.settings["database"])
    with wrong:
        pass
    done_well(there("import", data))
    with pytest.raises(OSError, match="the store is not that of the database"), wrong:
        pass
    with several.bridge(shard_size=1000) as bridge:
        filled.check_requests(bridge)


def test_new_bridges_that_have_run_may_be_imported_into(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    with several.bridge():
        assert failed(there("import", data)) == (
            f"a bridge is running on {shown_url(several.settings['database'])}: stop it first"
        )
    done_well(there("import", data))
    with several.bridge(shard_size=1000) as bridge:
        filled.check_requests(bridge)


def test_store_without_room_ends_the_import_in_one_line(
    data: Path, filled: Filled, there: Admin, several: Distributed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFullError("there is no room in the store")

    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "put", full)
        assert failed(there("import", data)) == "there is no room in the store"
    done_well(there("import", data))


def test_store_that_refuses_for_a_moment_damages_nothing(
    data: Path,
    filled: Filled,
    there: Admin,
    several: Distributed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As SeaweedFS does with 403 until it has read its keys, or as a network's login page does."""

    def refuse(store: S3Store, name: str, start: int) -> object:
        if name != INSTALLATION:
            raise StoreError("the store refuses")
        return get(store, name, start)

    done_well(there("import", data))
    get = S3Store.get
    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "get", refuse)
        assert failed(there("verify", "--repair")) == "the store refuses"
        assert failed(there("export", tmp_path / "copy")) == "the store refuses"
    assert done_well(there("verify")).endswith("Everything is whole.\n")
    assert len(several.objects()) == 12


def test_store_that_does_not_answer_ends_the_import_in_one_line(
    data: Path, filled: Filled, there: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "STORE_RETRY_SECONDS", 0.1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "did not answer: connection refused" in failed(there("import", data))


def delete_when_copying(monkeypatch: pytest.MonkeyPatch, kind: Any, filled: Filled) -> None:
    """Delete the files of a bucket when the first object is about to be copied into a *kind*."""
    deleting, put, once = iter(filled.files), kind.put, threading.Lock()

    def delete_and_put(store: ObjectStore, name: str, blocks: Iterable[memoryview]) -> None:
        with once:
            for file in deleting:
                path = f"/buckets/{filled.bucket}/files/{file}"
                assert filled.alice.ask("DELETE", path).status == 204
        put(store, name, blocks)

    monkeypatch.setattr(kind, "put", delete_and_put)


def test_folder_that_is_served_is_only_prepared(
    data: Path, there: Admin, several: Distributed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bridge(data, shard_size=1000) as bridge:
        filled = Filled(bridge)
        assert "a bridge is running on" in failed(there("import", data))
        done_well(there("import", "--prepare", data))
        filled.files.append(stored(filled.alice, filled.bucket, 4))
        delete_when_copying(monkeypatch, S3Store, filled)
        done_well(there("import", "--prepare", data))
        before = filled.seen(bridge)
    done = there("import", data)
    assert done_well(done).endswith(f" admin close --data {data} prevents it.\n")
    with several.bridge(shard_size=1000) as bridge:
        assert filled.seen(bridge) == before
    assert done_well(there("verify")).endswith("Everything is whole.\n")


def test_file_that_is_deleted_before_it_is_copied_makes_the_export_later(
    several: Distributed,
    there: Admin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "copy"
    with several.bridge(shard_size=1000) as bridge:
        filled = Filled(bridge)
        delete_when_copying(monkeypatch, FolderStore, filled)
        monkeypatch.setattr(export, "BACKUP_ROUNDS", 0)  # the snapshot comes first
        assert there("export", copy, "--json").json["files"] == 3
        before = filled.seen(bridge)
    assert done_well(admin_of(copy, capsys)("verify")).endswith("Everything is whole.\n")
    with Bridge(copy, shard_size=1000) as bridge:
        assert filled.seen(bridge) == before


def test_export_under_load_is_whole(
    several: Distributed, there: Admin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    with several.bridge(shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        with load(bridge, bucket) as running:
            running.wait(30)
            for _ in range(3):
                before = running.told()
                done_well(there("export", copy))
                after = running.told()
                running.wait(5)
    assert len(after) > len(before), "files were uploaded meanwhile"
    assert done_well(admin_of(copy, capsys)("verify")).endswith("Everything is whole.\n")
    with Bridge(copy, shard_size=1000) as alice.bridge:
        listed = {row["hash"] for row in alice.ask("GET", f"/buckets/{bucket}/files").json}
        for name in listed:
            assert file_hash(alice.download(bucket, name)) == name
    for name, (word, *_) in before.items():
        if word == "deleted":
            assert name not in listed, "it was deleted before"
        elif word == "stored" and after[name][0] == "stored":
            assert name in listed, "it was there all the time"


def test_no_bridge_starts_where_an_export_is_being_written(
    several: Distributed, there: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, told = tmp_path / "copy", list[str]()

    def start_and_put(store: FolderStore, name: str, blocks: Iterable[memoryview]) -> None:
        with pytest.raises(OSError, match="is being written") as refused, Bridge(copy):
            pass  # what is uploaded here would be gone at the end of the export
        told.append(str(refused.value))
        put(store, name, blocks)

    put = FolderStore.put
    with several.bridge(shard_size=1000) as bridge:
        filled = Filled(bridge)
        done_well(there("export", copy))
        filled.files.append(stored(filled.alice, filled.bucket, 4))
        monkeypatch.setattr(FolderStore, "put", start_and_put)
        done_well(there("export", copy))
        monkeypatch.setattr(FolderStore, "put", put)
        assert len(told) == 3
    with Bridge(copy, shard_size=1000) as bridge:
        filled.check_requests(bridge)
        (copy / "serving").unlink()  # as if the export had looked before
        assert "another backup or restore is using" in failed(there("export", copy))


def test_export_gives_up_if_files_are_deleted_again_and_again(
    several: Distributed, there: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with several.bridge(shard_size=1000) as bridge:
        filled = Filled(bridge)
        delete_when_copying(monkeypatch, FolderStore, filled)
        monkeypatch.setattr(export, "BACKUP_ROUNDS", 0)
        monkeypatch.setattr(export, "EXPORT_ROUNDS", 1)
        assert "stop the bridges first" in failed(there("export", tmp_path / "copy"))


def test_closed_bridge_does_not_start_until_it_is_reopened(
    data: Path, here: Admin, there: Admin, several: Distributed
) -> None:
    places: list[tuple[Callable[[], Bridge], Admin]] = [
        (lambda: Bridge(data), here),
        (several.bridge, there),
    ]
    for bridge, run in places:
        with bridge() as running:
            assert "a bridge is running on" in failed(run("close"))
            assert ask(running, "GET", "/ready").status == 200
        for _ in range(2):
            done_well(run("close"))
        with pytest.raises(OSError, match="it was closed"), bridge():
            pass
        assert run("users", "list", "--json").json == []
        done_well(run("verify"))
        done_well(run("reopen"))
        with bridge() as running:
            assert ask(running, "GET", "/ready").status == 200


@pytest.mark.parametrize("after", [False, True])
def test_folder_is_not_closed_while_a_bridge_starts_on_it(
    data: Path, here: Admin, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """The bridge has looked whether it is closed, or is just about to."""
    told = list[str]()

    def check_and_close(database: Database, objects: ObjectStore) -> None:
        if after:
            check_installation(database, objects)
        told.append(failed(here("close")))
        if not after:
            check_installation(database, objects)

    with Bridge(data):
        pass
    monkeypatch.setattr("pymdc.bridge.bridge.check_installation", check_and_close)
    with Bridge(data) as bridge:
        User(bridge, "alice")
    assert "a bridge is running on" in told[0]


def test_bridge_that_was_cut_off_while_its_database_was_closed_stores_nothing_there(
    there: Admin, several: Distributed
) -> None:
    """It is not seen by the command: PostgreSQL was started again, or the network was down."""
    with several.bridge() as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        token = alice.token(bucket, "PUSH")
        several.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'pymdc.bridge'"
        )
        done_well(there("close"))
        path, headers = f"/buckets/{bucket}/files", upload_headers(token, len(DATA))
        for reply in (
            ask(bridge, "GET", "/ready"),
            alice.ask("POST", "/buckets", {}),
            ask(bridge, "PUT", path, form(DATA), headers),
        ):
            assert reply.status == 503
        done_well(there("reopen"))
        assert ask(bridge, "PUT", path, form(DATA), headers).status == 200


def test_database_of_one_place_and_store_of_the_other_do_not_serve(
    data: Path, filled: Filled, there: Admin, several: Distributed, tmp_path: Path
) -> None:
    done_well(there("import", data))
    mixed = (
        Bridge(data, store=several.settings["store"]),
        Bridge(data, database=several.settings["database"]),
    )
    for bridge in mixed:
        with pytest.raises(OSError, match="store is not that of the database"), bridge:
            pass
    assert len(several.objects()) == 12


def test_folder_with_a_store_is_a_target_as_well(
    data: Path, filled: Filled, several: Distributed, tmp_path: Path, capsys: Any
) -> None:
    new, store = tmp_path / "new", several.settings["store"]
    run = admin_of(new, capsys)
    done_well(run("import", data, "--store", store))
    assert done_well(run("verify", "--store", store)).endswith("Everything is whole.\n")
    with Bridge(data, shard_size=1000) as bridge:
        before = filled.seen(bridge)
    with Bridge(new, store=store, shard_size=1000) as bridge:
        assert filled.seen(bridge) == before
        filled.check_requests(bridge)


def test_import_into_a_folder_that_is_broken_off_loses_no_object(
    data: Path,
    filled: Filled,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = tmp_path / "new"
    run = admin_of(new, capsys)
    with breaking(monkeypatch, imports, "_write_rows", 1):
        assert failed(run("import", data)) == "interrupted"
    with pytest.raises(OSError, match="not complete"), Bridge(new):
        pass
    value = run("import", data, "--json").json
    assert (value["copied"], value["there"]) == (0, 12)
    with Bridge(new, shard_size=1000) as bridge:
        filled.check_requests(bridge)


def change(data: Path, statement: str, *values: object) -> None:
    """Change the database of a folder behind the bridge's back."""
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        connection.execute(statement, values)


def test_name_with_nul_is_shown_and_replaced_on_demand(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    change(data, "UPDATE files SET filename = ? WHERE hash = ?", "a\0b", filled.files[0])
    change(data, "UPDATE buckets SET name = ? WHERE id = ?", "\0", filled.bucket)
    told = failed(there("import", data))
    assert f"files 1 in bucket {filled.bucket}: filename is 'a\\x00b'" in told
    assert "buckets 1: name is '\\x00'" in told
    assert told.endswith("--replace-nul puts U+FFFD in its place")
    assert several.rows("installation") == 0
    done_well(there("import", data, "--replace-nul"))
    with several.bridge() as filled.alice.bridge:
        listed = filled.alice.ask("GET", f"/buckets/{filled.bucket}/files").json
        assert listed[0]["filename"] == "a\ufffdb"


def test_row_that_the_database_refuses_is_named(
    data: Path, filled: Filled, there: Admin, several: Distributed
) -> None:
    change(data, "UPDATE files SET size = 'many' WHERE hash = ?", filled.files[1])
    told = failed(there("import", data))
    assert told.startswith(f"the database refuses files 2 in bucket {filled.bucket}: ")
    assert several.rows("users") == 0
    change(data, "UPDATE files SET size = 2500 WHERE hash = ?", filled.files[1])
    done_well(there("import", data))


def test_damaged_database_and_folder_without_one_are_not_imported(
    data: Path, filled: Filled, here: Admin, there: Admin, tmp_path: Path
) -> None:
    assert "it has no metadata.sqlite" in failed(there("import", tmp_path))
    assert f"{data} is where to import to, too" in failed(here("import", data))
    change(data, "UPDATE public_keys SET user = 'nobody@example.com'")
    assert "refers to a row of users that is missing" in failed(there("import", data))
    (data / "shards" / "installation").write_text("of another")
    change(data, "UPDATE public_keys SET user = 'alice@example.com'")
    assert "are not those of its database: their id is of another" in failed(there("import", data))


def test_commands_work_on_servers(
    several: Distributed, there: Admin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with several.bridge(shard_size=1000) as bridge:
        filled = Filled(bridge)
        listed = there("users", "list", "--json").json
        assert [row["email"] for row in listed] == [
            f"{name}@example.com" for name in ("alice", "bob", "carol")
        ]
        done_well(there("users", "activate", "carol@example.com"))
        assert len(there("buckets", "list", "--json").json) == 3
        done_well(there("buckets", "quota", filled.bucket, "--storage", 1))
        done_well(there("users", "disable", "bob@example.com"))
        assert filled.bob.ask("GET", "/buckets").status == 403
        assert len(there("users", "invite", "--json").json["invitation"]) == 32
        value = there("usage", "--json").json
        assert (value["objects"], value["disk_free"], value["database_size"] > 0) == (
            12,
            None,
            True,
        )
        assert "disk" not in there("usage").text
        done_well(there("users", "delete", "bob@example.com", "--yes"))
        assert len(several.objects()) == 9
    several.write(several.objects()[0], b"changed")
    several.write("f" * 32, b"unneeded")
    done = there("verify", "--repair")
    assert (done.status, "Set aside 2 objects in s3://" in done.text) == (1, True)
    for command in ["backup", tmp_path / "copy"], ["restore", tmp_path], ["vacuum"]:
        assert failed(there(*command)).startswith(("this is for a bridge", "vacuum is for"))
    run = admin_of(several.data, capsys)
    assert "the store is not that of the database" in failed(run("verify", several.options()[2]))


def test_settings_of_the_bridge_are_those_of_the_commands(
    several: Distributed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with several.bridge() as bridge:
        User(bridge, "alice")
    run = admin_of(tmp_path / "nothing", capsys)
    secret = several.settings["database"].replace("pymdc@", "pymdc:geheim@")
    monkeypatch.setenv("PYMDC_BRIDGE_DATABASE", secret)
    monkeypatch.setenv("PYMDC_BRIDGE_STORE", several.settings["store"])
    monkeypatch.setenv("PYMDC_BRIDGE_PORT", "is no number")
    (tmp_path / "password").write_text("ignored\n")
    monkeypatch.setenv("PYMDC_BRIDGE_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    assert "alice@example.com" in done_well(run("users", "list"))
    assert "geheim" not in done_well(run("close"))
    done_well(run("reopen"))
    for option in f"--database={secret}", "--database=mysql://x/y", "--store=s3://":
        done = run("users", "list", option)
        assert (done.status, done.text, "geheim" in done.errors) == (2, "", False)


def test_database_without_tables_is_no_bridge(
    several: Distributed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = sa.make_url(several.settings["database"]).port
    assert port
    empty = postgres.Server(port).new_database()
    done = admin_of(tmp_path, capsys)("users", "list", f"--database={empty}")
    assert failed(done) == f"{empty} can't be used: it is empty"
