"""Calls while the system starts no new threads, and afterwards."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from processes import python
from servers import ANSWER, Handler, RawServer, answer_all, read_request, wait

import pymdc
from pymdc._calls.threads import start_thread
from pymdc.testing import Account

PROGRAM = """
import io, pymdc, sys, threading

client = pymdc.Client(sys.argv[1], total=1)
user = pymdc.api.Users("a@b.com", "pass", client=client)
main = threading.main_thread()

def without_threads():
    threading.stack_size(1 << 46)  # which no thread can have

def with_threads():
    threading.stack_size(0)

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

def where(value):
    thread = "main thread" if threading.current_thread() is main else "worker"
    say(value if value == [] else type(value).__name__, thread)
"""


def printed(script: str, handle: Handler) -> list[str]:
    with RawServer(handle) as server:
        ended = python("-c", PROGRAM + script, server.endpoint)
    assert (ended.stderr, ended.returncode) == ("", 0)
    return ended.stdout.splitlines()


BOTH_MODES = """
without_threads()
say(user.register())
user.register(where).join()
with_threads()
say(user.register())
user.register(where).join()
"""


def test_calls_get_workers_again_after_thread_starts_failed() -> None:
    said = printed(BOTH_MODES, answer_all)
    assert said == ["[]", "[] main thread", "[]", "[] worker"]


MANY = """
without_threads()
for call in [user.register(where) for _ in range(100)]:
    call.join()
with_threads()
together = threading.Barrier(32)
for call in [user.register(lambda value: together.wait(20)) for _ in range(96)]:
    call.join()
say("all together")
"""


def test_all_workers_are_available_after_thread_starts_failed() -> None:
    assert printed(MANY, answer_all) == ["[] main thread"] * 100 + ["all together"]


LAST = """
without_threads()
user.register(where).join()
with_threads()
user.register(where)
"""


def test_process_stays_alive_for_callbacks_after_thread_starts_failed() -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ANSWER)
        read_request(connection)
        threading.Event().wait(0.5)  # longer than a program takes that is not held
        connection.sendall(ANSWER)

    assert printed(LAST, handle) == ["[] main thread", "[] worker"]


TOO_LATE = """
client.set_timeout(0.5)

def twice():  # on a new connection, and on the one that is kept
    for _ in range(2):
        value = user.register()
        say(type(value).__name__, str(value))

without_threads()
twice()
with_threads()
twice()
"""


def test_time_limits_are_enforced_during_and_after_failed_thread_starts() -> None:
    def drip(connection: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(300):
                connection.sendall(b"H")
                threading.Event().wait(0.1)

    then = [wait, drip]

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ANSWER)
        read_request(connection)
        then.pop(0)(connection)

    first, read, second, total = printed(TOO_LATE, handle)
    assert (first, second) == ("list []", "list []")
    assert read.startswith("Timeout")
    assert "no answer within 0.5 s" in read
    assert total.startswith("Timeout")
    assert "not done within 1 s" in total


CANCEL = """
without_threads()
say(user.register())
with_threads()
call = user.register(lambda value: None)
threading.Timer(0.1, call.cancel).start()
say(type(call.result()).__name__)
client.close()
say("closed")
"""


def test_cancel_and_close_end_calls_after_thread_starts_failed() -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ANSWER)
        wait(connection)

    assert printed(CANCEL, handle) == ["[]", "Cancelled", "closed"]


TRANSFERS = (
    PROGRAM
    + """
bucket, key, folder = sys.argv[2:]
files = pymdc.api.Files(bucket, pymdc.ECDSA(private_key=key), client=pymdc.Client(sys.argv[1]))

def there_and_back(data):
    entry = files.upload(io.BytesIO(data))
    files.download(entry["hash"], to=folder + "/out")
    with open(folder + "/out", "rb") as file:
        assert file.read() == data
    target = io.BytesIO()
    files.download(entry["hash"], to=target)
    assert target.getvalue() == data
    say(entry["size"])

without_threads()
there_and_back(b"1" * 9_000_000)
with_threads()
there_and_back(b"2" * 9_000_001)
"""
)


def test_transfers_work_during_and_after_failed_thread_starts(
    bucket: pymdc.api.Bucket, account: Account, client: pymdc.Client, tmp_path: Path
) -> None:
    bucket_id, key = bucket.list()["id"], account.key_pair.get_private_key()
    ended = python("-c", TRANSFERS, client.endpoint, bucket_id, key, str(tmp_path))
    assert (ended.stdout, ended.stderr) == ("9000000\n9000001\n", "")
    assert ended.returncode == 0


class EndingThread(threading.Thread):
    """As a thread whose start a trace function breaks off."""

    def start(self) -> None:
        raise SystemExit


def test_thread_whose_start_is_broken_off_counts_as_not_started() -> None:
    assert start_thread(EndingThread()) is False
