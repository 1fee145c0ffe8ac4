"""Starting and stopping, in a program and as one."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asking import PASSWORD, Count, User, address, ask, form, head, refused_upload, upload_headers
from processes import MINUTE, SUPPORT, bridge_process, python
from websockets.sync.client import connect

from pymdc.bridge import Bridge
from pymdc.bridge.bridge import _listen

PROGRAM = [sys.executable, "-W", "error", "-m", "pymdc.bridge", "--port", "0"]


@contextmanager
def program(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_was_stored_is_there_after_a_restart(data: Path) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket(name="photos")
        stored = user.upload(bucket, b"abc").json["hash"]
        assert user.ask("GET", "/keys", nonce=5).status == 200
    with Bridge(data) as user.bridge:
        assert user.download(bucket, stored) == b"abc"
        assert user.ask("GET", "/keys", nonce=5).error == (401, "Invalid nonce supplied")


def upload_in_flight(user: User, bucket: str, body: bytes, size: int) -> socket.socket:
    wire = socket.create_connection(address(user.bridge), timeout=MINUTE)
    wire.sendall(user.upload_head(bucket, size, len(form(bytes(size)))) + body)
    return wire


def test_what_a_killed_bridge_had_not_entered_is_swept(data: Path, objects: Count) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        stored = user.upload(bucket, b"abc").json["hash"]
    (data / "shards" / "notes.txt").touch()
    with bridge_process(data) as (bridge.endpoint, process):
        with upload_in_flight(user, bucket, form(bytes(9_000_000))[:-20], 9_000_000):
            while objects() == 2:
                pass
            process.kill()
            process.wait(MINUTE)
    (data / "shards" / f"{32 * 'f'}#1").touch()  # as a shard is called while it is written
    with Bridge(data) as user.bridge:
        assert objects() == 2
        assert user.download(bucket, stored) == b"abc"


def test_shards_on_their_way_into_another_bridge_are_not_swept(
    alice: User, data: Path, objects: Count
) -> None:
    bucket, body = alice.bucket(), form(bytes(range(250)) * 10)
    with upload_in_flight(alice, bucket, body[:-20], 2500) as wire:
        while objects() < 2:
            pass
        with Bridge(data):
            pass
        wire.sendall(body[-20:])
        assert wire.recv(1000).startswith(b"HTTP/1.1 200 ")
    [stored] = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert len(alice.download(bucket, stored["hash"])) == 2500


def test_bridge_does_not_start_where_shards_have_lost_their_database(
    data: Path, objects: Count
) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        stored = user.upload(bucket, b"abc").json["hash"]
    database, shards = data / "metadata.sqlite", data / "shards"
    line = f"{database} is missing or empty, but shards are in {shards}: bring the database back"
    for lose in (lambda: database.rename(data / "elsewhere"), database.touch):
        lose()
        done = python("-m", "pymdc.bridge", "--port", "0", "--data", data)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"pymdc\.bridge: {re.escape(line)}, .+\n", done.stderr)
        with pytest.raises(OSError, match=re.escape(line)), Bridge(data):
            pass
        assert objects() == 1
    (data / "elsewhere").rename(database)
    with Bridge(data) as user.bridge:
        assert user.download(bucket, stored) == b"abc"


def test_closing_leaves_no_thread_and_no_temporary_folder() -> None:
    threads = set(threading.enumerate())
    bridge = Bridge()
    with bridge:
        User(bridge, "alice")
        folder = Path(str(bridge._database._engine.url.database)).parent
    assert set(threading.enumerate()) <= threads
    assert not folder.exists()
    bridge.close()
    with pytest.raises(ConnectionRefusedError):
        ask(bridge, "GET", "/")


def test_taken_port_is_an_error_where_it_is_entered(bridge: Bridge, tmp_path: Path) -> None:
    _, port = address(bridge)
    threads = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"), Bridge(tmp_path / "other", port=port):
        pass
    assert set(threading.enumerate()) <= threads


def test_folder_that_is_none_is_an_error_where_it_is_entered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OSError, match="file"), Bridge(folder):
            pass
    (tmp_path / "metadata.sqlite").write_text("no database" * 1000)
    with pytest.raises(OSError, match="can't be used as a database"), Bridge(tmp_path):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shards").touch()
    with pytest.raises(OSError, match="other/shards"), Bridge(tmp_path / "other"):
        pass


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": ""}, "host is empty; expected an address"),
        ({"port": 65536}, "port is 65536; expected 0 to 65535"),
        ({"port": "80"}, "port is '80'; expected 0 to 65535"),
        ({"nonce_rule": "2017"}, "nonce_rule is '2017'; expected one of once, 2016"),
        ({"shard_size": 0}, "shard_size is 0; expected bytes, one or more"),
    ],
)
def test_settings_that_cannot_be_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Bridge(**given)


def test_activation_key_is_known_from_the_beginning_on() -> None:
    with pytest.raises(RuntimeError, match="has not begun to serve"):
        Bridge().activation_key("a@example.com")


def test_address_of_ipv6() -> None:
    with Bridge(host="::1") as bridge:
        assert re.fullmatch(r"http://\[::1\]:\d+", bridge.endpoint)
        assert ask(bridge, "GET", "/").status == 200


def test_idle_connections_do_not_delay_the_end(bridge: Bridge) -> None:
    with (
        socket.create_connection(address(bridge)) as used,
        connect(bridge.endpoint.replace("http", "ws"), compression=None),
        socket.create_connection(address(bridge)),
    ):
        used.sendall(head("GET /"))
        assert used.recv(10)
        closing_thread = threading.Thread(target=bridge.close)
        closing_thread.start()
        closing_thread.join(5)
        assert not closing_thread.is_alive()


def test_upload_in_flight_is_finished(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    stop = threading.Thread(target=alice.bridge.close)
    listening = socket.create_connection(address(alice.bridge))

    def chunks() -> Iterator[bytes]:
        yield body[:-10]
        with listening:
            stop.start()
            assert listening.recv(1) == b"", "idle connections are closed: it is stopping"
        yield body[-10:]

    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", chunks(), headers)
    assert reply.status == 200
    stop.join()


def test_shard_in_flight_is_finished(data: Path) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        shard = bytes(8_000_000)  # more than the sockets hold
        bucket = user.bucket()
        [pointer] = user.pointers(bucket, user.upload(bucket, shard).json["hash"]).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        stop = threading.Thread(target=bridge.close)
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            wire.connect(address(bridge))
            with connect(pointer["channel"], sock=wire, compression=None, max_queue=1) as channel:
                channel.send(json.dumps(fields))
                received = len(channel.recv())
                stop.start()
                while accepts(bridge):
                    pass
                received += sum(len(frame) for frame in channel)
        stop.join()
    assert received == len(shard)


def accepts(bridge: Bridge) -> bool:
    try:
        socket.create_connection(address(bridge)).close()
    except ConnectionError:
        return False
    return True


def test_body_that_nobody_wants_does_not_trouble_the_end(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bridge(data, grace=1) as bridge, refused_upload(bridge):
        bridge.close()
    assert [record for record in caplog.records if record.exc_info] == []


def test_second_signal_ends_the_program_at_once(data: Path) -> None:
    with program("--data", data) as process:
        assert process.stdout
        bridge = Bridge()
        bridge.endpoint = process.stdout.readline().split()[-1]
        with refused_upload(bridge):
            process.send_signal(signal.SIGINT)
            assert process.stderr
            while "Waiting for" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == -signal.SIGINT


def test_answers_do_not_wait_for_more() -> None:
    with _listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_program_tells_its_address_and_the_links(data: Path) -> None:
    with program("--data", data) as process:
        assert process.stdout
        endpoint = re.fullmatch(r"Bridge at (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
        assert endpoint
        bridge = Bridge()
        bridge.endpoint = endpoint[1]
        fields = {"email": "a@example.com", "password": PASSWORD}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
        link = process.stdout.readline().split()[-1]
        assert ask(bridge, "GET", link.removeprefix(endpoint[1])).json["activated"] is True
        process.terminate()
        assert process.wait(MINUTE) == 0
        assert process.stderr
        errors = process.stderr.read()
        assert "Traceback" not in errors
        assert link.rpartition("/")[2] not in errors
    assert (data / "metadata.sqlite").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_program_ends_well_by_a_signal(data: Path, number: signal.Signals) -> None:
    with program("--data", data) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(number)
        assert process.wait(MINUTE) == 0


def test_program_says_in_one_line_what_is_wrong(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    port = str(address(bridge)[1])
    for arguments in (
        ("--data", tmp_path / "file"),
        ("--data", tmp_path / "other", "--port", port),
        ("--data", tmp_path / "other", "--host", ""),
        ("--data", tmp_path / "other", "--smtp", "http://user:secret@x"),
        ("--data", tmp_path / "other", "--smtp", "smtp://user:sec/ret@x"),
    ):
        done = python("-m", "pymdc.bridge", "--port", "0", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"pymdc\.bridge: .+\n", done.stderr)
        assert "sec" not in done.stderr


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import runpy; runpy.run_module('pymdc.bridge', run_name='__main__')", "pymdc.bridge: "),
        ("from pymdc.bridge import Bridge", "ImportError: "),
    ],
    ids=["program", "import"],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, code: str, line: str) -> None:
    (tmp_path / "starlette.py").write_text("raise ImportError(name='starlette')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = []\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=MINUTE
    )
    assert (done.returncode, done.stdout) == (1, "")
    remedy = f"{sys.executable} -m pip install '.[bridge]' in a clone of the project"
    assert done.stderr.splitlines()[-1] == f"{line}starlette is missing: {remedy}"
    assert line.startswith("Import") or done.stderr.count("\n") == 1


AFTER_MAIN = """
import sys, threading
sys.path.insert(0, {here!r})
from asking import User
from pymdc.bridge import Bridge

def work(main=threading.main_thread()):
    main.join()
    try:
        user = User(bridge, "alice")
        bucket, data = user.bucket(), bytes(range(256)) * 40
        stored = user.upload(bucket, data).json["hash"]
        assert user.download(bucket, stored) == data
        print("done")
    finally:
        bridge.close()

bridge = Bridge(shard_size=1000).__enter__()
threading.Thread(target=work).start()
"""


def test_bridge_serves_after_the_main_thread_has_ended() -> None:
    code = AFTER_MAIN.format(here=str(SUPPORT))
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
