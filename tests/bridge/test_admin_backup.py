"""``python -m pymdc.bridge admin backup`` and ``restore``."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from administration import Admin, Done, admin_of
from churn import load
from plain_client import DATA, User
from processes import MINUTE, python
from stored_objects import upload_and_do

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.admin import backup
from pymdc.bridge.admin.objects import copy_objects
from pymdc.bridge.settings import Settings
from pymdc.bridge.storage.disk import lock
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.tables import Shard

BACKUP = ("-m", "pymdc.bridge", "admin", "backup")
Restored = Callable[..., Done]


@pytest.fixture
def admin(data: Path, capsys: pytest.CaptureFixture[str]) -> Admin:
    return admin_of(data, capsys)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    return tmp_path / "restored"


@pytest.fixture
def restore(restored: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> Restored:
    """Return a function that restores *copy* into *restored*."""
    return lambda *options: admin_of(restored, capsys)("restore", copy, *options)


def failed(done: Done) -> str:
    assert (done.status, done.text, done.errors.count("\n")) == (1, "", 1)
    return done.errors.removeprefix("pymdc.bridge admin: ").strip()


def stored(user: User, bucket: str, number: int) -> tuple[str, bytes]:
    """Upload a file of three shards; return its hash and its bytes."""
    content = random.Random(number).randbytes(2500)
    return user.upload(bucket, content).json["hash"], content


def objects_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "shards").glob("[0-9a-f]*")}


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def test_backup_has_every_file_when_it_is_restored(
    alice: User, bucket: str, admin: Admin, copy: Path, restored: Path, restore: Restored
) -> None:
    files = [stored(alice, bucket, number) for number in range(3)]
    done = admin("backup", copy)
    assert (done.status, done.errors) == (0, "")
    assert "3 files, 9 objects, 7.5 KB." in done.text
    assert "Copied 9 new objects, 7.5 KB, and deleted 0, in " in done.text
    alice.ask("DELETE", f"/buckets/{bucket}/files/{files[0][0]}")
    assert restore().text.startswith(f"Restored {restored}: 3 files, 9 objects, 7.5 KB, in ")
    with Bridge(restored) as alice.bridge:
        for name, content in files:
            assert alice.download(bucket, name) == content
        assert alice.upload(bucket, DATA).status == 200
    assert objects_in(restored) > objects_in(copy)


def test_later_backup_copies_what_is_new_and_deletes_what_is_gone(
    alice: User, bucket: str, admin: Admin, copy: Path
) -> None:
    first, _ = stored(alice, bucket, 1)
    stored(alice, bucket, 2)
    admin("backup", copy)
    alice.ask("DELETE", f"/buckets/{bucket}/files/{first}")
    stored(alice, bucket, 3)
    before = {path: path.stat().st_mtime_ns for path in (copy / "shards").glob("[0-9a-f]*")}
    value = admin("backup", copy, "--json").json
    assert (value["files"], value["copied"], value["deleted"]) == (2, 3, 3)
    kept = [path for path in (copy / "shards").glob("[0-9a-f]*") if path in before]
    assert len(kept) == 3
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_backup_that_is_put_back_loses_no_file_that_was_being_uploaded(
    data: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a file is newer than the backup, although the bridge knew of its upload by then."""
    with Bridge(data, shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()

        def back_up() -> None:
            alice.bucket()  # later than the first shard
            assert admin_of(data, capsys)("backup", copy).status == 0

        assert upload_and_do(alice, bucket, data, back_up).status == 200
    (data / "metadata.sqlite").rename(data / "newer.sqlite")
    shutil.copy(copy / "metadata.sqlite", data / "metadata.sqlite")
    with Bridge(data):
        pass
    for path in (data / "set-aside").iterdir():
        path.rename(data / "shards" / path.name)
    (data / "newer.sqlite").replace(data / "metadata.sqlite")
    with Bridge(data) as alice.bridge:
        assert alice.download(bucket, file_hash(DATA)) == DATA


def test_backup_is_for_its_owner_alone(
    alice: User,
    bucket: str,
    data: Path,
    admin: Admin,
    copy: Path,
    restored: Path,
    restore: Restored,
) -> None:
    stored(alice, bucket, 1)
    admin("backup", copy)
    restore()
    for folder in copy, restored, data:
        paths = [folder, *folder.rglob("*")]
        modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}
        assert modes == {(True, 0o700), (False, 0o600)}
    for folder in copy, restored:
        assert {path.name for path in folder.glob("metadata.sqlite*")} == {"metadata.sqlite"}


def test_backup_under_load_is_whole(
    alice: User,
    bucket: str,
    data: Path,
    admin: Admin,
    copy: Path,
    restored: Path,
    restore: Restored,
) -> None:
    with load(alice.bridge, bucket) as running:
        running.wait(30)
        assert admin("backup", copy).status == 0
        running.wait(10)
        before = running.told()
        done = python(*BACKUP, copy, "--data", data, "--json")
        after = running.told()
        running.wait(10)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["damaged"] == []
    assert len(after) > len(before), "files were uploaded meanwhile"
    assert restore().status == 0
    with Bridge(restored) as alice.bridge:
        listed = {row["hash"] for row in alice.ask("GET", f"/buckets/{bucket}/files").json}
        for name in listed:
            content = alice.download(bucket, name)
            assert file_hash(content) == name
            if name in before and before[name][0] == "stored":
                assert hashlib.sha256(content).hexdigest() == before[name][1]
    for name, (word, *_) in before.items():
        if word == "deleted":
            assert name not in listed, "it was deleted before"
        elif word == "stored" and after[name][0] == "stored":
            assert name in listed, "it was there all the time"


def when_copying(monkeypatch: pytest.MonkeyPatch, function: Callable[[], object]) -> None:
    """Call *function* when the backup is about to copy its first object."""
    put, calls = FolderStore.put, iter([function])

    def put_then(store: FolderStore, name: str, content: Iterable[memoryview]) -> None:
        for call in calls:
            call()
        put(store, name, content)

    monkeypatch.setattr(FolderStore, "put", put_then)


def test_file_that_is_deleted_during_a_backup_is_not_damage(
    alice: User, bucket: str, admin: Admin, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [stored(alice, bucket, number)[0] for number in range(3)]

    def delete_all_but_one() -> None:
        for name in names[1:]:
            assert alice.ask("DELETE", f"/buckets/{bucket}/files/{name}").status == 204

    when_copying(monkeypatch, delete_all_but_one)
    done = admin("backup", copy, "--json")
    assert (done.status, done.json["files"], done.json["objects"]) == (0, 1, 3)
    assert len(objects_in(copy)) == 3


def test_deletion_waits_while_the_last_objects_are_copied(
    alice: User,
    bucket: str,
    admin: Admin,
    copy: Path,
    restored: Path,
    restore: Restored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [stored(alice, bucket, number)[0] for number in range(3)]
    deleted: list[int] = []

    def delete_all() -> None:
        paths = [f"/buckets/{bucket}/files/{name}" for name in names]
        deleted.extend(alice.ask("DELETE", path).status for path in paths)

    deleting = threading.Thread(target=delete_all)

    def begin() -> None:
        deleting.start()
        deleting.join(0.3)  # if nothing holds it up, it is done by then

    monkeypatch.setattr(backup, "BACKUP_ROUNDS", 0)
    when_copying(monkeypatch, begin)
    assert admin("backup", copy, "--json").json["files"] == 3
    deleting.join(MINUTE)
    assert deleted == 3 * [204]
    assert restore().status == 0
    with Bridge(restored) as alice.bridge:
        assert [file_hash(alice.download(bucket, name)) for name in names] == names


def test_backup_that_is_killed_leaves_the_one_before(
    alice: User, bucket: str, data: Path, admin: Admin, copy: Path, restore: Restored
) -> None:
    stored(alice, bucket, 1)
    admin("backup", copy)
    before = (copy / "metadata.sqlite").read_bytes()
    for number in range(2, 32):
        alice.upload(bucket, random.Random(number).randbytes(9000))
    there = len(objects_in(copy))
    with subprocess.Popen([sys.executable, *BACKUP, str(copy), "--data", str(data)]) as process:
        while len(objects_in(copy)) == there:
            assert process.poll() is None
        process.kill()
    assert (copy / "metadata.sqlite").read_bytes() == before
    sizes = {
        path.stat().st_size for path in (copy / "shards").glob("[0-9a-f]*") if "#" not in path.name
    }
    assert sizes == {500, 1000}, "no object is there in part"
    (copy / "new").mkdir(exist_ok=True)
    (copy / "new" / "metadata.sqlite-journal").write_text("of a backup that was killed")
    assert admin("backup", copy, "--json").json["objects"] == 273
    assert set(os.listdir(copy)) == {"backup.lock", "metadata.sqlite", "shards"}
    assert restore().status == 0


def test_backup_with_damaged_objects_says_so_and_has_the_rest(
    alice: User,
    bucket: str,
    data: Path,
    admin: Admin,
    copy: Path,
    restored: Path,
    restore: Restored,
) -> None:
    name, content = stored(alice, bucket, 1)
    lost = min(objects_in(data))
    (data / "shards" / lost).unlink()
    other, other_content = stored(alice, bucket, 2)
    wrong = max(objects_in(data))
    damage(data / "shards" / wrong)
    done = admin("backup", copy)
    assert done.status == 1
    assert "2 objects could not be copied:" in done.text
    assert f"  {lost}  missing\n    a.bin (2.5 KB) in {bucket} (New Bucket) of" in done.text
    assert f"  {wrong}  wrong hash\n" in done.text
    done = restore()
    assert (done.status, done.errors) == (1, "")
    assert done.text.startswith(f"Nothing is restored: 2 objects of {copy} cannot be used.")
    assert os.listdir(restored) == ["serving"]
    done = restore("--force")
    assert done.status == 1
    assert "Without 2 objects:" in done.text
    with Bridge(restored, shard_size=1000) as alice.bridge:
        for again, its_content in (name, content), (other, other_content):
            assert alice.upload(bucket, its_content).json["hash"] == again
            assert alice.download(bucket, again) == its_content


def test_backup_keeps_an_object_that_the_store_has_lost(
    alice: User, bucket: str, data: Path, admin: Admin, copy: Path, restore: Restored
) -> None:
    stored(alice, bucket, 1)
    admin("backup", copy)
    damage(data / "shards" / min(objects_in(data)))
    (data / "shards" / max(objects_in(data))).unlink()
    assert admin("backup", copy).status == 0
    assert restore().status == 0


def test_damaged_database_does_not_replace_the_backup(data: Path, admin: Admin, copy: Path) -> None:
    with Bridge(data, shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        stored(alice, bucket, 1)
    assert admin("backup", copy).status == 0
    before = (copy / "metadata.sqlite").read_bytes()
    path = data / "metadata.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        [(page,)] = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'ix_shards_object'"
        )
        [(size,)] = connection.execute("PRAGMA page_size")
    with open(path, "r+b") as file:
        file.seek((page - 1) * size + 8)
        file.write(bytes(200))
    assert failed(admin("backup", copy)).endswith("; the backup before is kept")
    assert (copy / "metadata.sqlite").read_bytes() == before


def test_folder_that_is_for_something_else_is_no_backup(
    alice: User, bucket: str, data: Path, admin: Admin, tmp_path: Path
) -> None:
    stored(alice, bucket, 1)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "letter").touch()
    assert "neither empty nor a backup" in failed(admin("backup", documents))
    for folder in data, data / "backup", tmp_path:
        assert "have to be apart" in failed(admin("backup", folder))
    with Bridge(tmp_path / "other"):
        assert "the data folder of a bridge" in failed(admin("backup", tmp_path / "other"))
    place = tmp_path / "not mounted"
    assert (
        failed(admin("backup", place / "backup")) == f"{place} is missing; is a disk not mounted?"
    )
    letter = documents / "letter"
    assert failed(admin("backup", letter)) == f"{letter} is not a folder"
    assert objects_in(data)


def test_backup_of_other_users_is_not_replaced(
    alice: User, admin: Admin, copy: Path, restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert admin("backup", copy).status == 0
    before = (copy / "metadata.sqlite").read_bytes()
    with Bridge(restored) as other:  # such as one whose disk was not mounted
        assert "is a backup of other users" in failed(admin_of(restored, capsys)("backup", copy))
        User(other, "bob")
        assert "is a backup of other users" in failed(admin_of(restored, capsys)("backup", copy))
    assert (copy / "metadata.sqlite").read_bytes() == before


def test_two_backups_do_not_meet(alice: User, admin: Admin, copy: Path, restore: Restored) -> None:
    admin("backup", copy)
    with open(copy / "backup.lock", "rb+") as file:
        assert lock(file)
        assert "another backup or restore is using" in failed(admin("backup", copy))
        assert "a backup into" in failed(restore())
    assert admin("backup", copy).status == 0


def test_full_disk_keeps_the_backup_before(
    alice: User, bucket: str, admin: Admin, small: Path
) -> None:
    stored(alice, bucket, 1)
    copy = small / "backup"
    assert admin("backup", copy).status == 0
    before, objects = (copy / "metadata.sqlite").read_bytes(), objects_in(copy)
    with open(small / "filler", "wb", 0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    stored(alice, bucket, 2)
    assert "the disk of the backup is full" in failed(admin("backup", copy))
    assert (copy / "metadata.sqlite").read_bytes() == before
    assert objects_in(copy) == objects
    (small / "filler").unlink()
    assert admin("backup", copy, "--json").json["objects"] == 6


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# Restore


def test_folder_in_use_is_not_restored_into(
    alice: User, bucket: str, data: Path, admin: Admin, copy: Path
) -> None:
    name, content = stored(alice, bucket, 1)
    admin("backup", copy)
    assert failed(admin("restore", copy)) == f"a bridge is running on {data}: stop it first"
    alice.bridge.close()
    assert "is not empty: move away what is there" in failed(admin("restore", copy))
    with Bridge(data) as alice.bridge:
        assert alice.download(bucket, name) == content


def test_restore_that_was_broken_off_can_be_repeated(
    alice: User, bucket: str, admin: Admin, copy: Path, restored: Path, restore: Restored
) -> None:
    stored(alice, bucket, 1)
    admin("backup", copy)
    (restored / "restoring" / "shards").mkdir(parents=True)
    (restored / "shards").mkdir()
    (restored / "shards" / (32 * "f")).touch()
    with pytest.raises(OSError, match="shards are in"):
        Bridge(restored).__enter__()
    assert restore().status == 0
    assert set(os.listdir(restored)) == {"serving", "metadata.sqlite", "shards"}
    assert objects_in(restored) == objects_in(copy)


def test_folder_without_a_backup_is_not_restored(
    alice: User, admin: Admin, copy: Path, restored: Path, restore: Restored
) -> None:
    assert failed(restore()) == f"{copy} is no complete backup: it has no metadata.sqlite"
    assert not restored.exists()
    admin("backup", copy)
    (copy / "metadata.sqlite").write_bytes(b"no database" * 1000)
    assert failed(restore()).startswith("the database of the backup can't be used: ")
    assert os.listdir(restored) == ["serving"]


def test_backup_of_another_version_is_restored_if_it_is_older(
    data: Path, admin: Admin, copy: Path, restored: Path, restore: Restored
) -> None:
    with Bridge(data) as bridge:
        User(bridge, "alice")
    admin("backup", copy)
    for version in "9999", "0001":
        with closing(sqlite3.connect(copy / "metadata.sqlite")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [version])
        done = restore()
        if version == "9999":
            assert "knows none above" in failed(done)
            assert os.listdir(restored) == ["serving"]
    assert done.status == 0


def test_backup_without_its_lock_is_restored(
    alice: User, bucket: str, admin: Admin, copy: Path, restore: Restored, tmp_path: Path
) -> None:
    stored(alice, bucket, 1)
    admin("backup", copy)
    shutil.move(copy, tmp_path / "moved")
    copy.mkdir()
    for name in "metadata.sqlite", "shards":
        shutil.move(tmp_path / "moved" / name, copy)
    assert restore().status == 0


def test_copy_of_large_objects_takes_little_memory(tmp_path: Path) -> None:
    source, target = (FolderStore(tmp_path / name, fsync=False) for name in ("from", "to"))
    size = Settings.shard_size
    copied = [Shard(file_hash(bytes(size)), f"{number:032x}", size) for number in range(16)]
    for shard in copied:
        (tmp_path / "from" / shard.object).touch()
        os.truncate(tmp_path / "from" / shard.object, size)
    tracemalloc.start()
    try:
        assert [fault for _, fault in copy_objects(source, target, copied)] == 16 * [None]
        assert tracemalloc.get_traced_memory()[1] < 5 * size
    finally:
        tracemalloc.stop()
    assert {path.stat().st_size for path in (tmp_path / "to").iterdir()} == {size}
