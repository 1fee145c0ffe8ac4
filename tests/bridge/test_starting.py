"""A bridge that could not start, and the one that does after it; and how long a stop waits."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import OTHER_USER
from plain_client import Reply, User, ask, form, upload_headers
from processes import python

from pymdc.bridge import Bridge

DATA = random.Random(5).randbytes(2500)


def descriptors() -> set[str]:
    """Return what files and sockets this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def test_bridge_starts_once_its_port_is_free(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bridge = Bridge(data, port=taken.getsockname()[1])
        before = set(threading.enumerate()), descriptors()
        for _ in range(2):
            with pytest.raises(OSError, match="in use"), bridge:
                pass
        assert (set(threading.enumerate()), descriptors()) == before
    with bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        name = user.upload(bucket, DATA).json["hash"]
        assert user.download(bucket, name) == DATA
    with bridge:
        assert user.download(bucket, name) == DATA


def test_bridge_starts_once_its_folder_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    bridge = Bridge(tmp_path / "data")
    before = set(threading.enumerate()), descriptors()
    with pytest.raises(OSError, match="data"), bridge:
        pass
    assert (set(threading.enumerate()), descriptors()) == before
    (tmp_path / "data").unlink()
    with bridge:
        assert ask(bridge, "GET", "/").status == 200


def test_bridge_starts_once_its_database_can_be_read(data: Path) -> None:
    data.mkdir()
    (data / "metadata.sqlite").write_text("no database" * 1000)
    bridge = Bridge(data)
    before = set(threading.enumerate()), descriptors()
    with pytest.raises(OSError, match="can't be used as a database"), bridge:
        pass
    assert (set(threading.enumerate()), descriptors()) == before
    (data / "metadata.sqlite").unlink()
    with bridge:
        assert User(bridge, "alice").ask("GET", "/keys").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_root_does_not_serve_the_folder_of_another_user(data: Path) -> None:
    data.mkdir()
    os.chown(data, OTHER_USER, -1)
    done = python("-m", "pymdc.bridge", "--data", data, "--port", "0")
    told = f"{data} belongs to user {OTHER_USER}: run this as that user, not as root"
    assert (done.returncode, done.stderr) == (1, f"pymdc.bridge: {told}\n")
    assert os.listdir(data) == []


WITHOUT_THREADS = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from plain_client import ask
from pymdc.bridge import Bridge

def descriptors():
    return len(os.listdir("/proc/self/fd"))

bridge, before = Bridge(sys.argv[2]), []
threading.stack_size(1 << 46)  # which no thread can have
for _ in range(3):
    try:
        bridge.__enter__()
    except RuntimeError as error:
        before.append(descriptors())  # obstore keeps some from the first time on
threading.stack_size(0)
print(before[-1] - before[0], threading.active_count())
with bridge:
    print(ask(bridge, "GET", "/").status)
"""


def test_bridge_starts_once_a_thread_can_be_started(data: Path) -> None:
    support = Path(__file__).parents[1] / "support"
    ended = python("-c", WITHOUT_THREADS, support, data)
    assert (ended.stdout, ended.stderr) == ("0 1\n200\n", "")


def upload_that_ends(bridge: Bridge, seconds: float, closed: threading.Event) -> Reply:
    """Send half of a file, wait till the bridge stops, and *seconds* later send the rest."""
    user = User(bridge, "alice")
    bucket, body = user.bucket(), form(DATA)
    headers = upload_headers(user.token(bucket, "PUSH"), len(DATA))
    host, port = bridge.endpoint.removeprefix("http://").split(":")
    idle = socket.create_connection((host, int(port)))

    def pieces() -> Iterator[bytes]:
        yield body[:-1000]
        # Connections are accepted in turn: once this is answered, the upload has begun.
        assert ask(bridge, "GET", "/").status == 200
        with idle:
            closed.set()
            assert idle.recv(1) == b"", "idle connections are closed: it is stopping"
        threading.Event().wait(seconds)
        yield body[-1000:]

    return ask(bridge, "PUT", f"/buckets/{bucket}/files", pieces(), headers)


def test_stopping_bridge_waits_for_an_upload_that_takes_longer_than_a_second(data: Path) -> None:
    begun = threading.Event()

    def close() -> None:
        begun.wait(30)
        bridge.close()

    with Bridge(data, shard_size=1000, grace=20) as bridge:
        closing = threading.Thread(target=close)
        closing.start()
        reply = upload_that_ends(bridge, 1.6, begun)
        closing.join()
    assert (reply.status, reply.json["size"]) == (200, len(DATA))
    with Bridge(data) as bridge:
        user = User(bridge, "alice", known=True)
        assert user.download(reply.json["bucket"], reply.json["hash"]) == DATA


def test_stopping_bridge_waits_no_longer_than_the_upload_takes(data: Path) -> None:
    begun = threading.Event()

    def close() -> None:
        begun.wait(30)
        bridge.close()

    with Bridge(data, shard_size=1000, grace=600) as bridge:
        closing = threading.Thread(target=close)
        closing.start()
        assert upload_that_ends(bridge, 0.1, begun).status == 200
        closing.join(20)
        assert not closing.is_alive()
