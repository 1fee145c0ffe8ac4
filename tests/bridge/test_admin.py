"""``python -m pymdc.bridge admin``: users, buckets, usage, vacuum, and the program itself."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from administration import Admin, Done, admin_of
from filesystems import OTHER_USER, as_other_user
from plain_client import (
    DATA,
    PASSWORD,
    Count,
    Key,
    Reply,
    Rows,
    User,
    ask,
    basic,
    form,
    pull,
    upload_headers,
)
from processes import MINUTE, ROOT, python
from terminal import SHELL, Terminal

from pymdc._text import printable, quota_text, size_text
from pymdc.bridge import Bridge
from pymdc.bridge.admin.output import table
from pymdc.bridge.admin.program import COMMANDS, argument_parser, main
from pymdc.bridge.admin.storage import CommandError
from pymdc.bridge.options import parse

PAGE = (ROOT / "docs" / "running-a-bridge.rst").read_text("utf-8")
DISABLED = (403, "User account is disabled")
PROGRAM = ("-m", "pymdc.bridge", "admin")


@pytest.fixture
def bridge(data: Path) -> Iterator[Bridge]:
    """Give a bridge whose clock is that of the commands."""
    with Bridge(data, shard_size=1000) as running:
        yield running


@pytest.fixture
def admin(data: Path, capsys: pytest.CaptureFixture[str]) -> Admin:
    return admin_of(data, capsys)


def register(bridge: Bridge, name: str, **fields: object) -> Reply:
    credentials = {"email": f"{name}@example.com", "password": PASSWORD}
    return ask(bridge, "POST", "/users", json.dumps(credentials | fields))


def listed(admin: Admin) -> dict[str, str]:
    return {row["email"]: row["state"] for row in admin("users", "list", "--json").json}


def failed(done: Done) -> str:
    """Return the error of a command, which is one line."""
    assert (done.status, done.text) == (1, "")
    assert re.fullmatch(r"pymdc\.bridge admin: .+\n", done.errors)
    return done.errors.removeprefix("pymdc.bridge admin: ").strip()


def misused(admin: Admin, *arguments: str) -> str:
    """Return the error of a command that is not understood, which is one line."""
    done = admin(*arguments)
    assert (done.status, done.text, done.errors.count("\n")) == (2, "", 1)
    return done.errors.strip()


# Users


def test_users_are_listed_with_what_they_have(alice: User, bucket: str, admin: Admin) -> None:
    assert alice.upload(bucket, DATA).status == 200
    assert register(alice.bridge, "bob").status == 200
    [first, second] = admin("users", "list", "--json").json
    created = first.pop("created")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", created)
    assert first == {
        **{"email": "alice@example.com", "state": "active", "limit": None},
        **{"keys": 1, "buckets": 1, "files": 1, "used": 2500},
    }
    assert (second["email"], second["state"]) == ("bob@example.com", "not activated")
    head, *rows = admin("users", "list").text.splitlines()
    assert re.split(r" {2,}", head)[:2] == ["user", "state"]
    shown = created[:16].replace("T", " ")
    assert re.split(r" {2,}", rows[0]) == [
        *("alice@example.com", "active", shown, "1", "1", "1", "2.5 KB", "-")
    ]


def test_user_is_activated_without_the_link(bridge: Bridge, admin: Admin) -> None:
    register(bridge, "bob")
    assert admin("users", "activate", "Bob@example.com").text == "bob@example.com is active.\n"
    reply = ask(bridge, "GET", "/keys", headers=basic("bob@example.com", PASSWORD))
    assert reply.status == 200


def test_disabled_user_is_refused_at_once(alice: User, bucket: str, admin: Admin) -> None:
    guest = Key("guest")
    assert alice.ask("PATCH", f"/buckets/{bucket}", {"pubkeys": [guest.public]}).status == 200
    stored = alice.upload(bucket, DATA).json["hash"]
    pointer = alice.pointers(bucket, stored).json[0]
    push, files = upload_headers(alice.token(bucket, "PUSH"), 3), f"/buckets/{bucket}/files"
    pulling = {"x-token": alice.token(bucket, "PULL")}
    assert admin("users", "disable", alice.email).text == "alice@example.com is disabled.\n"
    token = f"/buckets/{bucket}/tokens", {"operation": "PULL"}
    by_password = ask(alice.bridge, "GET", "/keys", headers=basic(alice.email, PASSWORD))
    for reply in (
        by_password,
        alice.ask("GET", "/buckets"),
        alice.ask("POST", *token),
        alice.ask("POST", *token, key=guest),
        ask(alice.bridge, "PUT", files, form(b"abc"), push),
        ask(alice.bridge, "GET", f"{files}/{stored}", None, pulling),
    ):
        assert reply.error == DISABLED
    with pytest.raises(AssertionError, match="token is not accepted"):
        pull(pointer)
    assert listed(admin) == {alice.email: "disabled"}
    assert admin("users", "enable", alice.email).text == "alice@example.com is enabled.\n"
    assert alice.download(bucket, stored) == DATA
    assert alice.ask("POST", *token, key=guest).status == 200


def test_upload_that_ends_after_its_user_is_disabled_is_refused(
    alice: User, bucket: str, admin: Admin, objects: Count
) -> None:
    def pieces() -> Iterator[bytes]:
        body = form(DATA)
        yield body[:-100]
        assert admin("users", "disable", alice.email).status == 0
        yield body[-100:]

    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces(), headers)
    assert reply.error == DISABLED
    assert objects() == 0


def test_password_is_read_from_stdin(alice: User, bucket: str, data: Path) -> None:
    push = upload_headers(alice.token(bucket, "PUSH"), 3)
    command = [sys.executable, *PROGRAM, "--data", str(data), "users", "password", alice.email]
    done = subprocess.run(
        command, input="né w\r\n".encode(), capture_output=True, timeout=MINUTE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"alice@example.com has the new password.\n"
    assert alice.ask("GET", "/keys").status == 200, "keys stay"
    stolen = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", form(b"abc"), push)
    assert stolen.error == (401, "Invalid or expired token")
    for password, status in (PASSWORD, 401), (sha256("né w".encode()).hexdigest(), 200):
        headers = basic(alice.email, password)
        assert ask(alice.bridge, "GET", "/keys", headers=headers).status == status
    empty = subprocess.run(command, input=b"\n", capture_output=True, timeout=MINUTE, check=False)
    assert empty.returncode == 1
    assert empty.stderr == b"pymdc.bridge admin: the password is empty; nothing is changed\n"


def test_password_is_asked_on_the_terminal_without_echo(alice: User, data: Path) -> None:
    environment = {"PYMDC_BRIDGE_DATA": str(data), "PYTHONPATH": str(ROOT)}
    question, again = f"New password of {alice.email}: ", "The same again: "
    command = f"{sys.executable} {' '.join(PROGRAM)} users password {alice.email}"
    with Terminal(data, environment) as terminal:
        terminal.type(command, question)
        terminal.type("secret", again)
        printed = terminal.type("secrit", SHELL)
        assert printed.strip() == (
            "pymdc.bridge admin: the two passwords differ; nothing is changed"
        )
        terminal.type(command, question)
        seen = terminal.type("secret", again) + terminal.type("secret", SHELL)
        assert "secret" not in seen
        assert seen.strip() == "alice@example.com has the new password."
        terminal.type(command, question)
        terminal.send(b"secr\xe9t\n")
        assert terminal.read_to(SHELL).strip().endswith("is not UTF-8; nothing is changed")
        terminal.type(command, question)
        assert terminal.interrupt(SHELL).strip().endswith("pymdc.bridge admin: interrupted")
    headers = basic(alice.email, sha256(b"secret").hexdigest())
    assert ask(alice.bridge, "GET", "/keys", headers=headers).status == 200


def test_limit_of_a_user_goes_before_that_of_the_bridge(data: Path, admin: Admin) -> None:
    with Bridge(data, user_limit=0.000003) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        for limit, shown, status in (
            ("0", "0 GB", 413),
            ("0.000002", "2e-06 GB", 413),
            ("default", "the limit of the bridge", 200),
        ):
            done = admin("users", "limit", alice.email, limit)
            assert done.text == f"alice@example.com may store {shown}.\n"
            assert alice.upload(bucket, DATA).status == status


def test_deleted_user_is_gone_with_everything(
    alice: User, bucket: str, admin: Admin, objects: Count, rows: Rows
) -> None:
    bob = User(alice.bridge, "bob")
    kept = bob.upload(bob.bucket(), DATA).json
    alice.upload(bucket, DATA)
    alice.upload(alice.bucket(), DATA[:100])
    done = admin("users", "delete", alice.email, "--yes")
    assert done.text == "Deleted alice@example.com with 2 buckets and 2 files (2.6 KB).\n"
    assert alice.ask("GET", "/buckets").error == (401, "Public key not registered")
    assert (rows("users"), rows("buckets"), rows("files"), objects()) == (1, 1, 1, 3)
    assert bob.download(kept["bucket"], kept["hash"]) == DATA
    again = User(alice.bridge, "alice")
    assert again.ask("GET", "/buckets").json == []
    assert "no user alic@example.com" in failed(admin("users", "delete", "alic@example.com"))


def test_deletion_that_was_broken_off_is_finished_by_the_next(
    alice: User, bucket: str, admin: Admin, data: Path, objects: Count, rows: Rows
) -> None:
    alice.upload(bucket, DATA)
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        connection.execute("UPDATE users SET removed = 1")
    assert listed(admin) == {alice.email: "being deleted"}
    assert admin("users", "delete", alice.email, "--yes").status == 0
    assert (rows("users"), rows("buckets"), objects()) == (0, 0, 0)


def test_user_is_deleted_only_if_somebody_says_yes(alice: User, data: Path) -> None:
    environment = {"PYMDC_BRIDGE_DATA": str(data), "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} {' '.join(PROGRAM)} users delete {alice.email}"
    question = "Delete alice@example.com with 0 buckets and 0 files (0 B)? [y/N] "
    with Terminal(data, environment) as terminal:
        terminal.type(command, question)
        assert terminal.type("", SHELL).strip().endswith("nothing is deleted")
        assert alice.ask("GET", "/keys").status == 200
        terminal.type(command, question)
        assert terminal.type("y", SHELL).strip().startswith("Deleted alice@example.com")
    assert alice.ask("GET", "/keys").status == 401


def test_deletion_takes_yes_where_nobody_can_be_asked(alice: User, admin: Admin) -> None:
    assert "--yes deletes without asking" in failed(admin("users", "delete", alice.email))
    assert alice.ask("GET", "/keys").status == 200


def test_invitation_lets_one_user_register(data: Path, admin: Admin) -> None:
    with Bridge(data, registration="invite") as bridge:
        code = admin("users", "invite").text.strip()
        assert admin("users", "invite", "--json").json["invitation"] != code
        assert register(bridge, "bob", invitation=code).status == 200
        assert register(bridge, "carol", invitation=code).status == 403


@pytest.mark.parametrize("command", ["activate", "disable", "enable", "password", "delete"])
def test_unknown_user_is_one_line(bridge: Bridge, admin: Admin, command: str) -> None:
    done = admin("users", command, "nobody@example.com")
    assert failed(done) == "there is no user nobody@example.com; users list shows all"


# Buckets and usage


def test_buckets_are_listed_with_what_they_hold_and_sent(
    alice: User, bucket: str, admin: Admin
) -> None:
    stored = alice.upload(bucket, DATA).json["hash"]
    alice.download(bucket, stored)
    User(alice.bridge, "bob").bucket(name="\x1b[31mred", storage=None, transfer=0.5)
    removed = alice.bucket()
    assert alice.ask("DELETE", f"/buckets/{removed}").status == 204
    [first, second] = admin("buckets", "list", "--json").json
    del first["created"]
    assert first == {
        **{"id": bucket, "user": alice.email, "name": "New Bucket", "files": 1},
        **{"used": 2500, "sent": 2500, "storage": 10, "transfer": 30},
    }
    assert (second["user"], second["storage"], second["sent"]) == ("bob@example.com", None, 0)
    assert admin("buckets", "list", "--user", "bob@example.com", "--json").json == [second]
    rows = admin("buckets", "list").text.splitlines()
    assert re.split(r" {2,}", rows[1])[4:] == ["1", "2.5 KB", "10 GB", "2.5 KB", "30 GB"]
    assert r"\x1b[31mred" in rows[2], "names cannot change the terminal"
    assert re.split(r" {2,}", rows[2])[4:] == ["0", "0 B", "no limit", "0 B", "0.5 GB"]
    assert "no user x" in failed(admin("buckets", "list", "--user", "x"))


def test_quota_of_a_bucket_holds_at_once(alice: User, bucket: str, admin: Admin) -> None:
    done = admin("buckets", "quota", bucket, "--storage", "0.000002")
    assert done.text == f"{bucket} may store 2e-06 GB, and send 30 GB each month.\n"
    assert alice.upload(bucket, DATA).status == 413
    done = admin("buckets", "quota", bucket, "--storage", "none", "--transfer", "0", "--json")
    assert (done.json["storage"], done.json["transfer"]) == (None, 0)
    stored = alice.upload(bucket, DATA).json["hash"]
    assert alice.pointers(bucket, stored).status == 403
    assert "no bucket 123" in failed(admin("buckets", "quota", "123", "--storage", "1"))
    done = admin("buckets", "quota", bucket)
    assert (done.status, "nothing to set" in done.errors) == (2, True)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e400", "many", ""])
def test_wrong_quota_is_a_usage_error(admin: Admin, text: str) -> None:
    error = misused(admin, "buckets", "quota", "x", f"--storage={text}")
    assert f"{text!r} is neither a number of GB nor 'none'" in error


def test_usage_has_totals_and_each_user(alice: User, bucket: str, admin: Admin) -> None:
    for user_bucket in bucket, alice.bucket():
        stored = alice.upload(user_bucket, DATA).json["hash"]
        alice.download(user_bucket, stored)
    assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204
    alice.upload(alice.bucket(), DATA)
    value = admin("usage", "--json").json
    assert value.pop("database_size") > 4096
    assert 0 < value.pop("disk_free") <= value.pop("disk_size")
    mine = {"buckets": 2, "files": 2, "used": 5000}
    each = [{"email": alice.email} | mine]
    assert value == {
        **{"users": 1, "objects": 3, "objects_size": 2500, "sent_this_month": 2500},
        **mine,
        **{"by_user": each},
    }
    text = admin("usage").text
    assert re.search(r"^files +2, 5 KB$", text, re.MULTILINE)
    assert re.search(r"^alice@example\.com +2 +2 +5 KB$", text, re.MULTILINE)


# Vacuum


def test_vacuum_frees_the_room_of_deleted_rows_while_the_bridge_serves(
    alice: User, bucket: str, data: Path, admin: Admin
) -> None:
    stored = alice.upload(bucket, DATA).json["hash"]
    path = data / "metadata.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE filler AS SELECT zeroblob(1000000) AS bytes")
        connection.execute("DROP TABLE filler")
    value = admin("vacuum", "--json").json
    assert value["freed"] == value["before"] - value["after"] > 1_000_000
    assert path.stat().st_size <= value["after"] < 1_000_000
    assert alice.download(bucket, stored) == DATA
    assert re.fullmatch(
        r"The database had .+ and has .+: .+ freed, in .+ s\.\n", admin("vacuum").text
    )


# The program


def test_every_command_is_documented() -> None:
    documented = re.findall(r"(?:^|, )``((?:users |buckets )?[a-z]+)[ A-Z]*``", PAGE, re.MULTILINE)
    assert set(COMMANDS) <= set(documented)


def test_help_of_the_bridge_names_the_commands() -> None:
    assert "python -m pymdc.bridge admin" in " ".join(python(*PROGRAM[:2], "--help").stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_it_does(admin: Admin, command: str) -> None:
    assert admin(*command.split(), "--help").status == 0
    assert COMMANDS[command].run.__doc__


def test_every_command_prints_json(
    alice: User,
    bucket: str,
    admin: Admin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments: dict[str, list[object]] = {
        "users limit": [alice.email, 1],
        "users delete": [alice.email, "--yes"],
        "buckets quota": [bucket, "--storage", 1],
        "backup": [tmp_path / "copy"],
        "restore": [tmp_path / "copy"],
        "export": [tmp_path / "exported"],
        "import": [tmp_path / "exported"],
    }
    places = {
        "restore": "restored",
        "import": "imported",
        "close": "imported",
        "reopen": "imported",
    }
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"password\n")))
    for command in sorted(COMMANDS, key=lambda command: command == "users delete"):
        place = places.get(command)
        run = admin_of(tmp_path / place, capsys) if place else admin
        user = command in ("users activate", "users disable", "users enable", "users password")
        given = [alice.email] if user else arguments.get(command, [])
        done = run(*command.split(), *given, "--json")
        assert done.status == 0, f"{command}: {done.errors}"
        assert isinstance(done.json, dict | list), command


@pytest.mark.parametrize("command", ["", "users", "user list", "backup", "users limit a"])
def test_command_that_is_none_is_a_usage_error(admin: Admin, command: str) -> None:
    assert misused(admin, *command.split())


def test_usage_error_names_the_command(admin: Admin) -> None:
    assert misused(admin, "users", "limit", "a") == (
        "pymdc.bridge admin users limit: the following arguments are required: GB;"
        " --help says what is expected"
    )


def test_password_among_the_arguments_is_refused_and_not_shown(admin: Admin) -> None:
    done = admin("users", "password", "alice@example.com", PASSWORD)
    expected = "too many arguments; --help says what is expected"
    assert (done.status, done.errors) == (2, f"pymdc.bridge admin: {expected}\n")
    done = admin("users", "password", "alice@example.com", f"--password={PASSWORD}")
    assert "no such option: --password;" in done.errors
    assert PASSWORD not in done.errors


def written_commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of the program in *text*: in blocks, in units, in definitions."""
    [alias] = re.findall("alias bridge-admin='(.*)'$", text, re.MULTILINE) or [""]
    lines = re.findall(r"^(?: +\$ |ExecStart=)(?!alias)(.*)", text, re.MULTILINE)
    for line in lines + re.findall("``(.+?)``", text):
        whole = re.sub("^bridge-admin", alias, line).replace(" bridge admin", " pymdc.bridge admin")
        words = whole.split()
        if "pymdc.bridge" in words and words[-1] not in ("admin", "COMMAND"):
            yield words[words.index("pymdc.bridge") + 1 :]
    for definition in re.findall(r"^``[a-z].*``$", text, re.MULTILINE):
        for command in re.findall("``(.*?)``", definition):
            yield ["admin", *command.replace("GB", "1").split()]


def test_commands_that_are_written_somewhere_are_understood() -> None:
    files = [ROOT / "README.rst", *(ROOT / "deploy").iterdir()]
    texts = [PAGE, *(file.read_text("utf-8") for file in files)]
    commands = [command for text in texts for command in written_commands(text)]
    for command in commands:
        if command[:1] == ["admin"]:
            assert argument_parser().parse_args(command[1:]).run
        else:
            assert parse(command, {})
    assert len(commands) > 30


def test_folder_of_the_bridge_is_an_option_or_a_variable(
    alice: User, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, variable in (
        (["--data", str(data), "users", "list"], "/nowhere"),
        (["users", "list", "--data", str(data)], "/nowhere"),
        (["users", "list"], str(data)),
    ):
        monkeypatch.setenv("PYMDC_BRIDGE_DATA", variable)
        assert main(arguments) == 0
        assert alice.email in capsys.readouterr().out


def test_folder_without_a_bridge_is_one_line(tmp_path: Path, admin: Admin, data: Path) -> None:
    assert failed(admin("users", "list")).startswith(f"{data / 'metadata.sqlite'} is missing: ")
    assert not data.exists()
    data.mkdir()
    (data / "metadata.sqlite").write_text("no database" * 1000)
    assert failed(admin("usage")).endswith("can't be used as a database")
    (data / "metadata.sqlite").write_text("")
    assert failed(admin("usage")).endswith("can't be used: it is empty")


def test_folder_that_others_may_not_see_is_not_told_to_be_missing(
    alice: User, data: Path, tmp_path: Path, admin: Admin
) -> None:
    for command in ("users", "list"), ("restore", data, "--data", tmp_path / "other"):
        done = as_other_user(partial(admin, *command))
        assert failed(done).endswith(": Permission denied")


def test_database_of_another_version_is_left_alone(
    bridge: Bridge, data: Path, admin: Admin
) -> None:
    path = data / "metadata.sqlite"
    for version, told in ("0001", "start the bridge, which brings"), ("9999", "knows none above"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [version])
        assert told in failed(admin("users", "list"))
        with closing(sqlite3.connect(path)) as connection:
            [(kept,)] = connection.execute("SELECT version_num FROM alembic_version")
        assert kept == version


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_root_is_told_to_be_the_user_of_the_bridge(
    bridge: Bridge, data: Path, admin: Admin
) -> None:
    os.chown(data, OTHER_USER, -1)
    assert failed(admin("users", "list")) == (
        f"{data} belongs to user {OTHER_USER}: run this as that user, not as root"
    )


def test_reader_that_stops_early_sees_no_traceback(alice: User, data: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, *PROGRAM, "users", "list", "--data", str(data)]
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=MINUTE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_text_that_the_terminal_lacks_is_escaped(alice: User, data: Path) -> None:
    alice.bucket(name="Fotos für Ömi")
    done = python(*PROGRAM, "buckets", "list", "--data", data, env={"PYTHONIOENCODING": "ascii"})
    assert r"Fotos f\xfcr \xd6mi" in done.stdout


def test_sizes_have_units() -> None:
    shown = [size_text(size) for size in (0, 999, 1000, 999_949, 999_950, 12_500_000_000, 2e15)]
    assert shown == ["0 B", "999 B", "1 KB", "999.9 KB", "1 MB", "12.5 GB", "2 PB"]
    assert [quota_text(quota) for quota in (None, 10, 0.25)] == ["no limit", "10 GB", "0.25 GB"]


def test_table_has_columns() -> None:
    text = table(("name", ">size"), [("a", 1), ("longer\n", 200), (None, "")])
    assert text == "name      size\na            1\nlonger\\n   200\n-"
    assert printable("tür \x9b31m\u202e") == "tür \\x9b31m\\u202e"


def test_status_of_an_error_is_1_or_said() -> None:
    assert (CommandError("x").status, CommandError("x", status=2).status) == (1, 2)
