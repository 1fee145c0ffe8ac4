"""A forked child has its own connections, workers and nonces; no callback runs twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from certificates import certificate, over_tls
from modes import PATIENCE, Ask, register
from processes import python
from servers import ANSWER, HoldingServer, RawServer, answer_all, read_request
from steps import at_each_step

import pymdc
from pymdc import Cancelled
from pymdc._crypto.nonces import nonces
from pymdc.bridge import Bridge
from pymdc.testing import Account

# Python warns of a fork with threads; these tests do that on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
FORKS = ("-W", "ignore:This process:DeprecationWarning")  # a literal beginning, not a pattern


class Child:
    """A forked process that runs *work* and sends its value as JSON."""

    def __init__(self, work: Callable[[], Any]) -> None:
        here, there = os.pipe()
        self._pipe = open(here, "rb")  # noqa: SIM115  # closed by value()
        self._process = os.fork()
        if not self._process:
            signal.alarm(PATIENCE)
            try:
                os.write(there, json.dumps(work()).encode())
            finally:
                os._exit(0)
        os.close(there)

    def value(self) -> Any:
        with self._pipe:
            output = self._pipe.read()
        os.waitpid(self._process, 0)
        return json.loads(output)


def test_first_call_imports_no_module() -> None:
    # Another thread of the parent may be in the middle of such an import at the fork; the child
    # would wait for it for ever.
    program = """
import sys, pymdc
pymdc.Client("http://127.0.0.1:1")
before = {*sys.modules}
for host in ("127.0.0.1", "localhost"):
    with pymdc.Client(f"http://{host}:1") as client:
        print(type(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list()).__name__)
print(*{*sys.modules} - before)
"""
    run = python("-c", program)
    assert run.stdout.split() == ["ConnectError", "ConnectError"], run.stderr


class RecordingServer(RawServer):
    """Answers [] to every request; ``emails`` has the emails sent on each connection."""

    def __init__(self) -> None:
        self.emails: list[list[str]] = []
        super().__init__(self._answer)

    def __enter__(self) -> RecordingServer:
        return self

    def _answer(self, connection: socket.socket) -> None:
        emails: list[str] = []
        self.emails.append(emails)
        while body := read_request(connection)[1]:
            emails.append(json.loads(body)["email"])
            connection.sendall(ANSWER)


def user(client: pymdc.Client, name: str) -> pymdc.api.Users:
    return pymdc.api.Users(name, "pass", client=client)


def test_child_has_its_own_connections_and_workers(ask: Ask) -> None:
    with RecordingServer() as server, pymdc.Client(server.endpoint, workers=2) as client:

        def several(name: str) -> Any:
            return [ask(user(client, name).register) for _ in range(20)]

        several("parent")
        child = Child(lambda: several("child"))
        assert several("parent") == [[]] * 20
        assert child.value() == [[]] * 20
        assert several("parent") == [[]] * 20
    assert sorted(sorted(set(emails)) for emails in server.emails) == [["child"], ["parent"]]


def test_callbacks_outstanding_at_a_fork_run_once_in_the_parent() -> None:
    got: list[Any] = []
    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint, workers=1) as client:
        running = register(client, lambda value: got.append(os.getpid()))
        assert server.held.wait(PATIENCE)
        queued = [register(client, lambda value: got.append(os.getpid())) for _ in range(5)]

        def inspect_calls() -> Any:
            calls = [running, *queued]
            for call in calls:
                call.join(PATIENCE)
            kinds = {type(call.result()) for call in calls}
            changed = any(call.cancel() or call.is_alive() for call in calls)
            own = user(client, "child").register()
            client.close()
            return [kinds == {Cancelled}, changed, own, got]

        assert Child(inspect_calls).value() == [True, False, [], []]
        assert running.is_alive()
        assert not server.ended.is_set()
        running.cancel()
        server.released.set()
    assert got == [os.getpid()] * 6


CALLBACK = """
import os, pymdc, sys

def fork(value):
    pid = os.fork()
    if pid:
        print(os.waitpid(pid, 0)[1], flush=True)

with pymdc.Client(sys.argv[1], workers=1) as client:
    pymdc.api.Users("a@b.com", "pass", client=client).register(fork)
"""


def test_callback_may_fork_and_return_in_both_processes() -> None:
    with RawServer(answer_all) as server:
        ended = python(*FORKS, "-c", CALLBACK, server.endpoint)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


# Another thread holds the lock of the queue of which the callback is run.
LOCKED_QUEUE = """
import os, pymdc, signal, sys, threading

client = pymdc.Client("http://127.0.0.1:1", workers=1)
queue = getattr(client._pool, sys.argv[1])
locked, told, over = threading.Event(), threading.Event(), threading.Event()

def lock():
    with queue._lock:
        locked.set()
        told.wait(20)

def fork(value):
    holder = threading.Thread(target=lock)
    holder.start()
    locked.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(10)
        return
    print(os.waitpid(child, 0)[1], flush=True)
    told.set()
    over.set()

if sys.argv[1] == "_cancelled":
    client.run(lambda scope: over.wait(20), lambda value: None)
    client.run(lambda scope: None, fork).cancel()
else:
    client.run(lambda scope: None, fork)
client.close()
"""


@pytest.mark.parametrize("queue", ["_queue", "_cancelled"])
def test_child_does_not_wait_for_the_lock_of_a_queue(queue: str) -> None:
    ended = python(*FORKS, "-c", LOCKED_QUEUE, queue)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


# A handler forks while `close` waits for a callback that the worker of another client runs.
CLOSING = """
import os, pymdc, signal, sys, threading

one, other = pymdc.Client(sys.argv[1]), pymdc.Client(sys.argv[1])
begun, go_on = threading.Event(), threading.Event()

def work(scope):
    begun.set()
    go_on.wait(20)

def fork(number, frame):
    pid = os.fork()
    if pid:
        print(os.waitpid(pid, 0)[1], flush=True)
        go_on.set()
    else:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)

one.run(lambda scope: None, lambda value: other.run(work, None))
begun.wait(20)
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.1)
other.close()
"""


def test_child_forked_during_close_does_not_wait_for_threads_of_parent() -> None:
    ended = python(*FORKS, "-c", CLOSING, "http://127.0.0.1:1")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


def test_child_needs_no_files_and_variables_of_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_side = certificate(tmp_path, "localhost")
    monkeypatch.chdir(tmp_path)
    with RawServer(over_tls(server_side, answer_all)) as server:
        endpoint = f"https://localhost:{server.port}"
        with pymdc.Client(endpoint, ca_certs=server_side.name) as client:
            assert user(client, "parent").register() == []
            monkeypatch.chdir("/")
            monkeypatch.setenv("https_proxy", "no proxy at all")
            assert Child(lambda: user(client, "child").register()).value() == []


def test_call_done_at_a_fork_keeps_its_value() -> None:
    children, go_on = SimpleQueue[Child](), threading.Event()
    with RecordingServer() as server, pymdc.Client(server.endpoint) as client:
        call = register(client, lambda value: go_on.wait(PATIENCE))
        own = user(client, "child")
        call.add_done_callback(lambda c: children.put(Child(lambda: [c.result(), own.register()])))
        go_on.set()
        assert children.get(timeout=PATIENCE).value() == [[], []]
        assert call.result() == []


def test_multiprocessing_child_ends_after_its_callbacks() -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    with RecordingServer() as server, pymdc.Client(server.endpoint) as client:
        assert user(client, "parent").register() == []
        child = fork.Process(target=lambda: user(client, "child").register(there.send) and None)
        child.start()
        assert user(client, "parent").register() == []
        assert here.poll(PATIENCE)
        assert here.recv() == []
        child.join(PATIENCE)
        assert child.exitcode == 0
    child.close()
    here.close()
    there.close()
    assert sorted(sorted(set(emails)) for emails in server.emails) == [["child"], ["parent"]]


def test_children_of_a_busy_parent_do_not_wait_for_its_locks() -> None:
    """A child never waits for a lock that a thread of its parent held at the fork."""
    enough = threading.Event()
    with RecordingServer() as server, pymdc.Client(server.endpoint, workers=4) as client:

        def again(value: Any) -> None:
            if not enough.is_set():
                register(client, again)

        def inspect_calls() -> Any:
            call = user(client, "child").register(lambda value: None)
            values = [user(client, "child").register(), call.result(PATIENCE)]
            client.close()
            return values

        for _ in range(8):
            register(client, again)
        for _ in range(15):
            assert Child(inspect_calls).value() == [[], []]
        enough.set()


FORKING = """
import os, pymdc

user, parent = pymdc.api.Users("a@b.com", "pass"), os.getpid()

def told(value):
    who = "parent" if os.getpid() == parent else "child"
    os.write(1, f"{who} {type(value).__name__}\\n".encode())

user.register()
for _ in range(3):
    user.register(told)
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    user.register(told)
"""


def test_forked_program_ends_cleanly_in_both_processes(bridge: Bridge) -> None:
    done = python(*FORKS, "-c", FORKING, env={"PYMDC_ENDPOINT": bridge.endpoint})
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(done.stdout.splitlines()) == ["child dict"] + ["parent dict"] * 3


def test_child_makes_client_while_thread_of_parent_reads_certificates(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    os.mkfifo(certificates)  # so that reading it takes until somebody writes
    endpoint = "https://localhost:1"
    thread = threading.Thread(target=lambda: pymdc.Client(endpoint, ca_certs=str(certificates)))
    thread.start()
    with open(certificates, "wb") as pipe:
        assert Child(lambda: pymdc.Client(endpoint).endpoint).value() == endpoint
        pipe.write(certificate(tmp_path, "localhost").read_bytes())
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_parent_and_child_sign_with_one_key_at_once(ask: Ask, bucket: pymdc.api.Bucket) -> None:
    def several() -> list[Any]:
        return [ask(bucket.list)["name"] for _ in range(20)]

    child = Child(several)
    assert several() == ["photos"] * 20
    assert child.value() == ["photos"] * 20


def next_ahead_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the next nonce by a clock that is one second ahead."""
    with monkeypatch.context() as patch:
        patch.setattr(nonces, "_clock", lambda: time.time_ns() + 10**9)
        return nonces.next()


def test_parents_and_children_have_different_nonces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "_digits", lambda: str(os.getpid()))

    def several() -> list[str]:
        return [nonces.next() for _ in range(2_000)]

    def child() -> list[str]:
        grandchild = Child(several)
        return several() + list(grandchild.value())

    nonces.in_child()
    next_ahead_of_the_clock(monkeypatch)  # so that each goes on where this one is
    children = [Child(child) for _ in range(2)]
    found = several() + [nonce for child in children for nonce in child.value()]
    assert len({float(nonce) for nonce in found}) < len(found)
    assert len(set(found)) == len(found) == 10_000


def test_children_draw_new_random_digits_for_nonces() -> None:
    assert len({Child(nonces.next).value()[-3:] for _ in range(20)}) > 10


def test_child_continues_after_the_last_nonce_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far_ahead = Decimal(next_ahead_of_the_clock(monkeypatch))
    assert Decimal(Child(nonces.next).value()) > far_ahead


def test_child_takes_nonces_at_any_step_of_a_thread_of_the_parent() -> None:
    children: list[Child] = []

    def several() -> int:
        nonces.next()
        before = sys.getallocatedblocks()
        for _ in range(1_000):
            nonces.next()
        return sys.getallocatedblocks() - before

    def fork() -> None:
        thread = threading.Thread(target=lambda: children.append(Child(several)))
        thread.start()
        thread.join(PATIENCE)

    at_each_step(nonces.next, fork)
    kept = [child.value() for child in children]
    assert len(kept) > 10
    assert max(kept) < 100, "a child keeps what none of its threads lets go of"


def test_threads_may_share_client_bucket_and_key_pair(
    ask: Ask, account: Account, bucket: pymdc.api.Bucket
) -> None:
    got: list[bool] = []

    def use(number: int) -> None:
        text = f"text {number}"
        signed = account.key_pair.valid_signature(account.key_pair.sign(text), text)
        answers = [ask(bucket.list)["name"], ask(bucket.files.list), ask(bucket.files.list)]
        got.append(signed and answers == ["photos", [], []])

    threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert got == [True] * 16
