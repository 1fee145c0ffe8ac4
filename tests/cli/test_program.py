"""The program: exit codes, signals, pipes, terminals, and what it needs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE

import pytest
from command_line import Program, Verb
from processes import MINUTE, ROOT
from rich.cells import cell_len
from servers import HoldingServer, RawServer, answering, read_request, read_some, written
from terminal import Tty
from valve import Valve
from verb_reference import verbs

from pymdc import ECDSA, __version__
from pymdc._cli import main
from pymdc._cli.failures import Code, Failure, code_of
from pymdc.bridge import Bridge
from pymdc.testing import Account

SIZE = 30_000_000
SHARD = 8 * 1024 * 1024


@contextmanager
def started(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m pymdc``."""
    command = [sys.executable, "-W", "error", "-m", "pymdc", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_version_is_that_of_the_library(pymdc: Verb) -> None:
    assert pymdc("--version").out == f"pymdc {__version__}\n"


def test_every_verb_has_help_and_json(pymdc: Verb) -> None:
    for name in verbs():
        if name != "serve":  # whose options are the bridge's
            shown = pymdc(name, "--help").out
            assert f"Usage: pymdc {name} " in shown
            assert "--json" in shown


def test_program_without_a_verb_shows_all_of_them(pymdc: Verb) -> None:
    shown = pymdc()
    assert (shown.code, shown.out, shown.err) == (2, "", pymdc("--help").out)
    summaries = shown.err.partition("Commands:\n")[2].splitlines()
    assert len(summaries) == len(verbs())
    assert not [line for line in summaries if line.endswith("...")]
    (error,) = map(json.loads, pymdc("--json").err.splitlines())
    assert error["code"] == 2


def test_wrong_use_is_two_lines_and_2(pymdc: Verb) -> None:
    wrong = [
        ["nothing"],
        ["put"],
        ["put", "a"],
        ["put", "a", "b"],
        ["put", "a", "b", "photos:name"],
        ["put", "a", "photos:folder/name"],
        ["ls", "--nothing"],
        ["get", "photos"],
        ["rm", "photos:"],
        ["cat", "photos:"],
        ["mb", "a:b"],
        ["mb", "a/b"],
        ["put", "--jobs", "0", "a", "b:"],
    ]
    for arguments in wrong:
        done = pymdc(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert done.err.startswith("pymdc: ")
        assert done.err.count("\n") <= 2


@pytest.mark.usefixtures("signed_in")
def test_missing_bucket_or_file_is_3(photos: str, pymdc: Verb) -> None:
    for arguments in ["ls", "no:"], ["cat", "photos:no"], ["rb", "no"], ["rm", "photos:no*"]:
        assert pymdc(*arguments).code == 3
    remedy = "pymdc buckets lists the buckets, pymdc mb 'my photos' makes one"
    assert pymdc("ls", "my photos:").err.endswith(f"\n  {remedy}\n")


def test_what_is_named_twice_is_removed_once(three_files: list[str], pymdc: Verb) -> None:
    pymdc(*three_files)
    removed = pymdc("rm", "--json", "photos:a.jpg", "photos:*.jpg").records
    assert sorted(record["filename"] for record in removed) == ["a.jpg", "b.jpg"]
    assert len(pymdc("rb", "-y", "--json", "photos", "photos:").records) == 1


def test_who_has_not_signed_in_gets_4(pymdc: Verb) -> None:
    done = pymdc("ls")
    assert (done.code, done.err) == (4, "pymdc: not signed in\n  pymdc login http://HOST:6382\n")


def test_unknown_key_gets_4(bridge: Bridge, pymdc: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    monkeypatch.setenv("PYMDC_PRIVATE_KEY", ECDSA().get_private_key())
    unknown = pymdc("ls")
    assert unknown.code == 4
    assert "PYMDC_PRIVATE_KEY is set, and used unless there is a --profile" in unknown.err
    monkeypatch.setenv("PYMDC_PRIVATE_KEY", "no key")
    assert pymdc("ls").code == 4
    monkeypatch.setenv("PYMDC_ENDPOINT", "")
    assert pymdc("ls").code == 4


def test_bridge_that_is_away_is_5(
    signed_in: Account, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
    done = pymdc("ls")
    assert done.code == 5
    assert "does anything listen there?" in done.err
    with RawServer(answering(written("502 Bad Gateway", b"<html>"))) as server:
        monkeypatch.setenv("PYMDC_ENDPOINT", server.endpoint)
        assert pymdc("ls").code == 5


def lists_one_bucket(connection: socket.socket) -> None:
    """Answer a list of buckets, and close the connection for everything else."""
    bucket = {"id": "0" * 24, "name": "photos", "storage": None, "transfer": None}
    if read_request(connection)[0].startswith(b"GET /buckets?"):
        connection.sendall(written("200 OK", json.dumps([bucket]).encode(), "Connection: close"))


def test_connection_that_fails_ends_all_transfers(
    signed_in: Account, folder: Path, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (folder / name).write_text(name)
    with RawServer(lists_one_bucket) as server:
        monkeypatch.setenv("PYMDC_ENDPOINT", server.endpoint)
        done = pymdc("put", "--jobs", "1", "a", "b", "c", "photos:")
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("pymdc: a: ")
    assert done.err.count("pymdc: ") == 1


def test_damaged_file_is_6_and_not_kept(
    folder: Path, tmp_path: Path, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bridge(tmp_path / "data") as bridge:
        monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
        monkeypatch.setenv("PYMDC_PRIVATE_KEY", key_of_new_account(bridge))
        (folder / "a").write_text("content")
        assert (pymdc("mb", "photos").code, pymdc("put", "a", "photos:").code) == (0, 0)
        for path in (tmp_path / "data" / "shards").glob("[0-9a-f]*"):
            if path.is_file():
                path.write_text("CONTENT")
        assert pymdc("get", "photos:a", "b").code == 6
        assert not (folder / "b").exists()


def key_of_new_account(bridge: Bridge) -> str:
    import pymdc

    with pymdc.Client(bridge.endpoint) as client:
        user = pymdc.api.Users("you@example.com", client=client)
        user.register()
        user.activate(bridge.activation_key(user.username))
        keys = pymdc.api.Keys(user)
        keys.create()
        return keys.key_pairs[0].get_private_key()


def test_codes_of_several_failures_are_one() -> None:
    missing, network = Failure("", Code.NOT_FOUND), Failure("", Code.NETWORK)
    assert code_of([], 1) == Code.DONE
    assert code_of([missing, missing], 0) == Code.NOT_FOUND
    assert code_of([missing], 1) == Code.FAILED
    assert code_of([missing, Failure("")], 0) == Code.FAILED
    assert code_of([missing, network], 5) == Code.NETWORK


@pytest.mark.usefixtures("signed_in")
def test_ctrl_c_ends_a_call_with_130() -> None:
    with HoldingServer(read_some) as server:
        with started("ls", PYMDC_ENDPOINT=server.endpoint) as process:
            assert server.held.wait(MINUTE)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=MINUTE)
            server.released.set()
    assert (process.returncode, out, err) == (130, "", "pymdc: interrupted\n")


def test_interrupted_download_is_resumed(
    photos: str, folder: Path, bridge: Bridge, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(SIZE)
    (folder / "big").write_bytes(content)
    assert pymdc("put", "big", "photos:").code == 0
    with Valve(bridge, limit=2 * SHARD + SHARD // 2) as valve:
        monkeypatch.setenv("PYMDC_ENDPOINT", valve.endpoint)
        monkeypatch.setenv("PYMDC_CHANNELS", "1")
        with started("get", "photos:big", "back") as process:
            assert valve.held.wait(MINUTE)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=MINUTE)
        told = "pymdc: interrupted: run the same command again to resume\n"
        assert (process.returncode, err) == (130, told)
        assert not (folder / "back").exists()
        valve.opened.set()
        valve.passed = 0
        assert pymdc("get", "photos:big", "back") == (0, "1 file, 30 MB\n", "")
    assert (folder / "back").read_bytes() == content
    assert valve.passed < SIZE - SHARD
    assert not [*folder.glob(".*part")]


@pytest.mark.usefixtures("photos")
def test_closed_pipe_ends_quietly(folder: Path, pymdc: Verb) -> None:
    for number in range(30):
        (folder / f"{number:0200}").write_text(str(number))
    assert pymdc("put", *sorted(folder.iterdir()), "photos:").code == 0
    line = f"{sys.executable} -m pymdc ls photos: --json | head -1; echo ${{PIPESTATUS[0]}}"
    for number in range(30):
        (folder / f"{number:0200}").unlink()
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=MINUTE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.endswith("\n0\n")
    assert done.stderr == ""


@pytest.mark.usefixtures("photos")
def test_full_stdout_is_told(program: Program) -> None:
    with open("/dev/full", "wb") as full:
        done = program("ls", capture_output=False, stdout=full, stderr=PIPE)
    assert (done.returncode, done.stderr) == (1, b"pymdc: stdout: No space left on device\n")


@pytest.fixture
def three_files(photos: str, folder: Path, pymdc: Verb) -> list[str]:
    (folder / "a.jpg").write_bytes(bytes(1000))
    (folder / "b.jpg").write_bytes(bytes(2000))
    (folder / "empty").touch()
    return ["put", "a.jpg", "b.jpg", "empty", "photos:"]


def test_bars_are_drawn_on_a_terminal_alone(
    three_files: list[str], pymdc: Verb, tty: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert pymdc(*three_files, tty=tty).out == "3 files, 3 KB\n"
    drawn = tty.read()
    for name, size in ("a.jpg", "1 KB"), ("b.jpg", "2 KB"), ("empty", "0 B"):
        assert re.search(f"{name} ━+ 100 % {size} [0-9.]+ [KM]?B/s", drawn)
    for quiet in "--no-progress", "--json", "-q":
        assert pymdc(*three_files, quiet, tty=tty).code == 0
        assert tty.read() == ""


@pytest.mark.parametrize("columns", [0, 30, 60, 80])  # 0 is that of a terminal without a size
def test_bars_fit_the_terminal(
    photos: str, folder: Path, pymdc: Verb, tty: Tty, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    (folder / "a.jpg").write_bytes(bytes(1000))
    (folder / f"{'holiday ' * 8}.jpg").write_bytes(bytes(2000))
    (folder / f"{'写真' * 20}.jpg").write_bytes(bytes(3000))
    monkeypatch.setenv("NO_COLOR", "1")
    tty.resize(columns)
    assert pymdc("put", *folder.iterdir(), "photos:", tty=tty).code == 0
    lines = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "\n", tty.read()).splitlines()
    finished = [line for line in lines if re.search(r" 100 % [123] KB [0-9.]+ [KM]?B/s *$", line)]
    assert {line.split(" 100 %")[0].rstrip(" ━")[-4:] for line in finished} == {".jpg"}
    assert len(finished) >= 3
    assert {cell_len(line) <= (columns or 80) for line in lines} == {True}


def test_colours_are_left_out_if_unwanted(
    three_files: list[str], pymdc: Verb, tty: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    pymdc(*three_files, tty=tty)
    assert "\x1b[38;" not in tty.read()
    monkeypatch.delenv("NO_COLOR")
    pymdc(*three_files, tty=tty)
    assert "\x1b[38;" in tty.read()


def test_bucket_is_removed_after_a_question(three_files: list[str], pymdc: Verb, tty: Tty) -> None:
    pymdc(*three_files, tty=tty)
    tty.read()
    tty.type("n")
    assert pymdc("rb", "photos", tty=tty).code == 1
    shown = tty.read()
    assert "Remove the bucket photos (3 files, 3 KB) for good? [y/N]: " in shown
    assert "nothing was changed" in shown
    tty.send(b"\x04")
    assert pymdc("rb", "photos", tty=tty).code == 130
    assert tty.read().endswith("? [y/N]: \npymdc: interrupted\n")
    tty.type("y")
    assert pymdc("rb", "photos", tty=tty).code == 0
    assert pymdc("ls").out == ""


def test_bucket_is_not_removed_unasked(photos: str, pymdc: Verb) -> None:
    refused = pymdc("rb", "photos")
    assert refused.code == 1
    assert "-y" in refused.err
    assert pymdc("rb", "photos", "--dry-run").out == "would remove photos (0 files, 0 B)\n"
    (record,) = pymdc("rb", "photos", "-y", "--json").records
    assert (record["name"], record["removed"], record["files"]) == ("photos", True, 0)


def test_buckets_of_one_name_are_told_apart_by_id(
    photos: str, signed_in: Account, pymdc: Verb
) -> None:
    import pymdc as library

    library.api.Buckets(signed_in.key_pair).create("photos", 1, 1, [])
    refused = pymdc("ls", "photos:")
    message, *lines = refused.err.splitlines()
    assert (refused.code, message) == (
        1,
        "pymdc: 2 buckets are named photos; type the id of one instead",
    )
    assert len(lines) == 2
    for line in lines:
        assert pymdc("ls", line.split()[0]).code == 0


@pytest.mark.parametrize("module", ["click", "platformdirs"])
def test_missing_package_is_one_line(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("pymdc._cli.profile")
    for name in [*sys.modules]:
        if name.startswith("pymdc._cli."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    assert main() == 1
    install = f"{sys.executable} -m pip install '.[cli]' in a clone of the project"
    assert capsys.readouterr() == ("", f"pymdc: {module} is missing: {install}\n")


def test_serve_passes_its_options_on(program: Program) -> None:
    refused = program("serve", "--port", "x")
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"pymdc.bridge: --port is 'x'")


def test_demo_leaves_nothing(tmp_path: Path, program: Program) -> None:
    (tmp_path / "tmp").mkdir()
    done = program("demo", env={"TMPDIR": str(tmp_path / "tmp")})
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    for verb in "serve", "login", "mb", "put", "ls", "get", "share":
        assert f"$ pymdc {verb} " in shown
    assert [*(tmp_path / "tmp").iterdir()] == []
    assert not (tmp_path / "config").exists()


@pytest.mark.usefixtures("photos")
def test_bash_completes_buckets_and_files(folder: Path, tmp_path: Path, pymdc: Verb) -> None:
    (folder / "IMG_1.jpg").write_text("1")
    assert pymdc("put", "IMG_1.jpg", "photos:").code == 0
    program = tmp_path / "bin" / "pymdc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pymdc "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    script = """
    eval "$1"
    complete_words() {
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        _pymdc_completion pymdc
        echo "${COMPREPLY[*]}"
    }
    compopt() { :; }
    complete_words pymdc ls ph
    complete_words pymdc cat photos:I
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", pymdc("completion", "bash").out],
        capture_output=True,
        text=True,
        timeout=MINUTE,
        check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == ["photos:", "photos:IMG_1.jpg"], done.stderr


@pytest.mark.usefixtures("photos")
def test_doctor_finds_nothing_wrong(pymdc: Verb) -> None:
    done = pymdc("doctor", "--json")
    assert done.code == 0
    states = {record["check"]: record["state"] for record in done.records}
    assert states.keys() == {
        *("profile", "sign-in", "proxy", "bridge", "tls", "clock", "key", "signing")
    }
    is_fast = find_spec("btclib_secp256k1") is not None
    assert states.pop("signing") == ("ok" if is_fast else "warning")
    assert {*states.values()} == {"ok"}


def test_doctor_looks_at_a_bridge_before_anybody_signs_in(bridge: Bridge, pymdc: Verb) -> None:
    done = pymdc("doctor", bridge.endpoint, "--json")
    assert done.code == 0
    checks = [record["check"] for record in done.records]
    assert checks == ["proxy", "bridge", "tls", "clock", "signing"]
    away = "http://127.0.0.1:1"
    failed = pymdc("login", away, "--email", "you@example.com", stdin="a good password\n")
    assert failed.code == 5
    assert failed.err.endswith(f"\n  pymdc doctor {away} looks for the reason\n")
    assert pymdc("doctor", away).code == 5


def test_doctor_says_what_is_wrong(
    signed_in: Account, bridge: Bridge, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = written(
        "200 OK", json.dumps({"info": {}}).encode(), "Date: Tue, 01 Mar 2016 00:00:00 GMT"
    )
    with RawServer(answering(late)) as server:
        monkeypatch.setenv("PYMDC_ENDPOINT", server.endpoint)
        clock = next(line for line in pymdc("doctor").out.splitlines() if " clock " in line)
        assert clock.startswith("failed")
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    monkeypatch.setenv("PYMDC_PRIVATE_KEY", ECDSA().get_private_key())
    unknown = pymdc("doctor")
    assert unknown.code == 4
    assert "failed   key       the bridge refused: Public key not registered" in unknown.out
    monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
    away = pymdc("doctor")
    assert away.code == 5
    assert "is it running?" in away.out
    monkeypatch.setenv("http_proxy", "http://user:s3cret@127.0.0.1:2")
    for name in "no_proxy", "NO_PROXY":
        monkeypatch.delenv(name, raising=False)
    behind = pymdc("doctor").out
    assert "is it the proxy? no_proxy=127.0.0.1 goes past it" in behind
    assert "s3cret" not in behind
    monkeypatch.delenv("http_proxy")
    monkeypatch.delenv("PYMDC_PRIVATE_KEY")
    assert pymdc("doctor").code == 4
