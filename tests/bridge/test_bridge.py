"""Starting and stopping a bridge."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import Backend
from plain_client import (
    Count,
    User,
    accepts,
    address,
    ask,
    form,
    head,
    refused_upload,
    upload_headers,
)
from processes import SUPPORT, python
from websockets.sync.client import connect

from pymdc.bridge import Bridge
from pymdc.bridge.bridge import _listen


def test_stored_data_survives_a_restart(backend: Backend) -> None:
    with backend.bridge() as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket(name="photos")
        stored = user.upload(bucket, b"abc").json["hash"]
        assert user.ask("GET", "/keys", nonce=5).status == 200
    with backend.bridge() as user.bridge:
        assert user.download(bucket, stored) == b"abc"
        assert user.ask("GET", "/keys", nonce=5).error == (401, "Invalid nonce supplied")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let files be created with the mode that the program asks for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_data_folder_is_for_its_owner_alone(data: Path) -> None:
    (data / "shards").mkdir(mode=0o755, parents=True)
    data.chmod(0o755)
    (data / "metadata.sqlite").touch(mode=0o644)
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        user.upload(user.bucket(), b"abc")
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [data, *data.rglob("*")]}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    names = {path.relative_to(data).parts[0] for path in modes if path != data}
    assert {"metadata.sqlite", "metadata.sqlite-wal", "shards", "outbox", "serving"} <= names


def test_shards_without_a_database_stop_the_start(data: Path, objects: Count) -> None:
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


def test_closed_bridge_leaves_no_thread_and_no_temporary_folder() -> None:
    threads = set(threading.enumerate())
    bridge = Bridge()
    with bridge:
        User(bridge, "alice")
        folder = Path(str(bridge._database.engine.url.database)).parent
    assert set(threading.enumerate()) <= threads
    assert not folder.exists()
    bridge.close()
    with pytest.raises(ConnectionRefusedError):
        ask(bridge, "GET", "/")


def test_taken_port_is_an_error_on_entering(bridge: Bridge, tmp_path: Path) -> None:
    _, port = address(bridge)
    threads = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"), Bridge(tmp_path / "other", port=port):
        pass
    assert set(threading.enumerate()) <= threads


def test_unusable_folder_is_an_error_on_entering(tmp_path: Path) -> None:
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


def test_activation_key_is_an_error_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="has not begun to serve"):
        Bridge().activation_key("a@example.com")


def test_ipv6_address_is_listened_on() -> None:
    with Bridge(host="::1") as bridge:
        assert re.fullmatch(r"http://\[::1\]:\d+", bridge.endpoint)
        assert ask(bridge, "GET", "/").status == 200


def test_idle_connections_do_not_delay_the_close(bridge: Bridge) -> None:
    with (
        socket.create_connection(address(bridge)) as used,
        connect(bridge.endpoint.replace("http", "ws"), compression=None),
        socket.create_connection(address(bridge)),
    ):
        used.sendall(head("GET /"))
        assert used.recv(10)
        stop = threading.Thread(target=bridge.close)
        stop.start()
        stop.join(5)
        assert not stop.is_alive()


def test_upload_in_flight_is_finished_on_close(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    stop = threading.Thread(target=alice.bridge.close)
    listening = socket.create_connection(address(alice.bridge))

    def chunks() -> Iterator[bytes]:
        yield body[:-10]
        # Connections are accepted in turn: once this is answered, the upload has begun.
        assert ask(alice.bridge, "GET", "/").status == 200
        with listening:
            stop.start()
            assert listening.recv(1) == b"", "the bridge is not stopping"
        yield body[-10:]

    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", chunks(), headers)
    assert reply.status == 200
    stop.join()


def test_shard_in_flight_is_finished_on_close(backend: Backend) -> None:
    with backend.bridge() as bridge:
        user = User(bridge, "alice")
        shard = bytes(8_000_000)  # more than the buffers of the sockets
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


def test_unread_body_causes_no_error_on_close(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Bridge(data, grace=1) as bridge, refused_upload(bridge):
        bridge.close()
    assert [record for record in caplog.records if record.exc_info] == []


def test_listener_sends_responses_without_delay() -> None:
    with _listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


AFTER_MAIN = """
import sys, threading
sys.path.insert(0, {here!r})
from plain_client import User
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


@pytest.mark.parametrize("name", ["what?x=y", "a%41b", "Grüße ☃"])
def test_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Bridge(tmp_path / name) as bridge:
        assert ask(bridge, "GET", "/").status == 200
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name / "metadata.sqlite").exists()


def test_unfinished_upload_gets_503_on_close(backend: Backend) -> None:
    with backend.bridge(grace=1) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        with socket.create_connection(address(bridge), timeout=20) as wire:
            head = user.upload_head(bucket, 9_000_000, 9_000_200)
            wire.sendall(head + form(b"x" * 8_500_000)[:-20])
            bridge.close()
            answer = wire.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b'{"error":"The bridge is stopping"}')
    assert backend.objects() == []
