"""``python -m pymdc.bridge admin verify``."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from administration import Admin, admin_of
from plain_client import DATA, Count, User, ask, form, upload_headers
from processes import ROOT
from terminal import SHELL, Terminal

from pymdc.bridge.admin import verify
from pymdc.bridge.admin.objects import read_object

SHARDS = [DATA[start : start + 1000] for start in (0, 1000, 2000)]
WHOLE: dict[str, Any] = {
    **{"damaged": [], "orphans": [], "database": [], "miscounted": []},
    "set_aside": 0,
}


@pytest.fixture
def admin(data: Path, capsys: pytest.CaptureFixture[str]) -> Admin:
    return admin_of(data, capsys)


def objects_by_content(data: Path) -> dict[bytes, Path]:
    return {path.read_bytes(): path for path in (data / "shards").glob("[0-9a-f]*")}


def found(admin: Admin, *options: str) -> dict[str, Any]:
    """Return what `verify` found, without the figures."""
    value = admin("verify", "--json", *options).json
    return {name: value[name] for name in WHOLE}


def test_store_that_is_whole_is_told_to_be(alice: User, bucket: str, admin: Admin) -> None:
    alice.upload(bucket, DATA)
    alice.upload(bucket, b"")
    done = admin("verify")
    assert (done.status, done.errors) == (0, "")
    assert done.text.startswith("Checked 3 objects, 2.5 KB, in ")
    assert done.text.endswith("\nEverything is whole.\n")
    assert found(admin) == WHOLE


def test_every_damage_is_found_and_mended_by_the_next_upload(
    alice: User, bucket: str, data: Path, admin: Admin
) -> None:
    stored = alice.upload(bucket, DATA, "beach.jpg").json["hash"]
    other = alice.upload(alice.bucket(name="Copies"), DATA + b"more", "sea.jpg").json
    first, second, third = (objects_by_content(data)[content] for content in SHARDS)
    first.unlink()
    second.write_bytes(SHARDS[1][:-1])
    third.write_bytes(SHARDS[2][:-1] + b"!")
    done = admin("verify")
    assert done.status == 1
    assert "3 objects are damaged:" in done.text
    file = f"    beach.jpg (2.5 KB) in {bucket} (New Bucket) of alice@example.com\n"
    for path, fault in (
        (first, "missing"),
        (second, "wrong size: 999 instead of 1,000 bytes"),
        (third, "wrong hash"),
    ):
        assert f"  {path.name}  {fault}\n{file}" in done.text
    also = f"    sea.jpg (2.5 KB) in {other['bucket']} (Copies) of alice@example.com\n"
    assert done.text.count(also) == 2, "its last shard is another one"
    damaged = found(admin, "--repair")["damaged"]
    assert {row["object"] for row in damaged} == {first.name, second.name, third.name}
    assert {path.name for path in (data / "set-aside").iterdir()} == {second.name, third.name}
    assert {row["fault"] for row in found(admin)["damaged"]} == {"missing"}
    assert alice.upload(bucket, DATA).json["hash"] == stored
    assert found(admin) == WHOLE
    assert alice.download(bucket, stored) == DATA
    assert alice.download(other["bucket"], other["hash"]) == DATA + b"more"


def test_repair_says_what_it_did(alice: User, bucket: str, data: Path, admin: Admin) -> None:
    alice.upload(bucket, DATA)
    objects_by_content(data)[SHARDS[0]].write_bytes(b"")
    done = admin("verify", "--repair")
    assert done.status == 1
    assert done.text.endswith(
        f"\nSet aside 1 object in {data / 'set-aside'}.\n"
        "The files above are whole again once the same content is uploaded again.\n"
    )


def test_object_that_cannot_be_read_is_damage(
    alice: User, bucket: str, data: Path, admin: Admin
) -> None:
    alice.upload(bucket, b"abc")
    [path] = (data / "shards").glob("[0-9a-f]*")
    path.unlink()
    path.mkdir()
    [damage] = found(admin)["damaged"]
    assert damage["fault"] == "unreadable: Is a directory"
    assert damage["files"][0]["filename"] == "a.bin"


def test_object_without_a_row_is_told_and_set_aside(
    alice: User, bucket: str, data: Path, admin: Admin, objects: Count
) -> None:
    alice.upload(bucket, DATA)
    orphan = data / "shards" / (32 * "f")
    orphan.write_bytes(bytes(1500))
    (data / "shards" / "notes.txt").touch()
    done = admin("verify")
    assert (done.status, "1 object (1.5 KB) that no file needs." in done.text) == (1, True)
    assert found(admin, "--repair")["orphans"] == [{"object": 32 * "f", "size": 1500}]
    assert found(admin) == WHOLE
    assert [path.name for path in (data / "set-aside").iterdir()] == [32 * "f"]
    alice.bridge.close()
    (data / "shards" / (32 * "e")).touch()
    assert found(admin)["orphans"] == [{"object": 32 * "e", "size": 0}], "no bridge runs"


def test_upload_on_its_way_is_no_orphan(
    alice: User, bucket: str, data: Path, admin: Admin, objects: Count
) -> None:
    def pieces() -> Iterator[bytes]:
        body = form(DATA)
        yield body[:-100]
        while objects() < 2:
            pass
        assert found(admin, "--repair") == WHOLE
        yield body[-100:]

    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces(), headers)
    assert alice.download(bucket, reply.json["hash"]) == DATA


def test_file_that_is_removed_meanwhile_is_not_damage(
    alice: User, bucket: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed after its rows were read, before its objects are."""
    stored = alice.upload(bucket, DATA).json["hash"]
    calls = iter([f"/buckets/{bucket}/files/{stored}"])

    def remove_and_read(*arguments: Any) -> object:
        for path in calls:
            assert alice.ask("DELETE", path).status == 204
        return read_object(*arguments)

    monkeypatch.setattr(verify, "read_object", remove_and_read)
    assert found(admin) == WHOLE


@pytest.mark.parametrize("column", ["used", "files"])
def test_sums_are_checked_and_corrected(
    alice: User, bucket: str, data: Path, admin: Admin, column: str
) -> None:
    alice.upload(bucket, DATA)
    other = alice.bucket()
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        wrong = f"UPDATE buckets SET {column} = {column} + 1 WHERE id = ?"
        connection.execute(wrong, [bucket])
    done = admin("verify", "--repair")
    assert done.status == 1
    assert f"Wrong sums of files in: {bucket}.\nThe sums are corrected.\n" in done.text
    assert other not in done.text
    assert found(admin) == WHOLE
    assert admin("usage", "--json").json["used"] == 2500
    [counted] = alice.ask("GET", "/usage").json["buckets"][:1]
    assert (counted["stored"], counted["files"]) == (2500, 1)


def test_faults_of_the_database_are_told(
    alice: User, bucket: str, data: Path, admin: Admin
) -> None:
    stored = alice.upload(bucket, DATA).json["hash"]
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        connection.execute("DELETE FROM file_shards WHERE position = 1")
        connection.execute("UPDATE public_keys SET user = 'nobody@example.com'")
    done = admin("verify", "--repair")
    assert done.status == 1
    assert f"the shards of a.bin ({stored}) in {bucket} do not add up to 2,500 bytes" in done.text
    assert "row 1 of public_keys refers to a row of users that is missing" in done.text
    assert done.text.endswith("The database is not repaired: restore a backup.\n")


def test_progress_is_shown_on_a_terminal_and_removed(alice: User, bucket: str, data: Path) -> None:
    alice.upload(bucket, DATA)
    command = f"{sys.executable} -m pymdc.bridge admin --data {data} verify"
    with Terminal(data, {"PYTHONPATH": str(ROOT)}) as terminal:
        printed = terminal.type(command, SHELL)
    assert "Verified: 2.5 KB of 2.5 KB" in printed
    assert printed.endswith("Everything is whole.\n")


def test_long_report_is_cut_and_json_is_not(
    alice: User, bucket: str, data: Path, admin: Admin
) -> None:
    alice.upload(bucket, b"".join(number.to_bytes(2, "big") * 500 for number in range(60)))
    for path in (data / "shards").glob("[0-9a-f]*"):
        path.unlink()
    text = admin("verify").text
    assert text.count("  missing\n") == 50
    assert text.endswith("  and 10 more, which --json shows\n")
    assert len(found(admin)["damaged"]) == 60


def test_backup_can_be_verified(
    alice: User, bucket: str, admin: Admin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice.upload(bucket, DATA)
    admin("backup", tmp_path / "copy")
    copied = admin_of(tmp_path / "copy", capsys)
    assert found(copied) == WHOLE
    objects_by_content(tmp_path / "copy")[SHARDS[0]].write_bytes(b"")
    assert copied("verify", "--repair").status == 1
    assert admin("backup", tmp_path / "copy", "--json").json["copied"] == 1
    assert found(copied) == WHOLE


def test_verify_goes_on_while_files_come_and_go(alice: User, bucket: str, admin: Admin) -> None:
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = alice.upload(bucket, number.to_bytes(4, "big") * 600).json["hash"]
            alice.ask("DELETE", f"/buckets/{bucket}/files/{name}")

    alice.upload(bucket, DATA)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            assert found(admin) == WHOLE
    finally:
        stop.set()
        worker.join()
