"""Programs and clients end in time, run every callback, and leak nothing."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from channels import HASH, pointer, pointer_server, send_shard, websocket
from modes import AT_ONCE, MODES, PATIENCE, register
from processes import MINUTE, python
from servers import ANSWER, HoldingServer, RawServer, answer_all, read_request, wait

import pymdc
from pymdc import Cancelled
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.monitor import Monitor
from pymdc.exceptions import Closed

SOON = 20  # seconds, on a busy machine, for what takes about five


class GatedServer(RawServer):
    """Reads requests, counts them in ``arrived``, and answers [] once ``open`` is set."""

    def __init__(self) -> None:
        self.arrived, self.open = threading.Semaphore(0), threading.Event()
        super().__init__(self._hold)

    def __enter__(self) -> GatedServer:
        return self

    def _hold(self, connection: socket.socket) -> None:
        while read_request(connection)[0]:
            self.arrived.release()
            self.open.wait(PATIENCE)
            connection.sendall(ANSWER)

    def await_requests(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE)


def open_resources() -> set[object]:
    """Return the threads, sockets and open files of this process."""
    files = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            files.add((descriptor, os.readlink(f"/proc/self/fd/{descriptor}")))
    # The server of websockets leaves its pipe and its selector to the garbage collector.
    ours = {file for file in files if not file[1].startswith(("pipe:", "anon_inode:"))}
    return {*threading.enumerate(), *ours}


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Check that a test leaks no thread and no descriptor."""
    before = open_resources()
    yield
    for thread in threading.enumerate():
        # Nothing else waits for a client closed by its callback, or for threads of test servers.
        if thread.name == "pymdc-close" or not (
            thread in before or thread.name.startswith("pymdc")
        ):
            thread.join(PATIENCE)
    assert open_resources() <= before


pytestmark = pytest.mark.usefixtures("no_leaks")


def test_close_waits_for_calls_callbacks_and_chained_calls() -> None:
    order: list[str] = []

    def again(value: Any) -> None:
        register(client, lambda value: order.append("callback"))

    def close() -> None:
        client.close()
        order.append("closed")

    with GatedServer() as server:
        client = pymdc.Client(server.endpoint, workers=1)
        register(client, again)
        closing = threading.Thread(target=close)
        closing.start()
        server.await_requests(1)
        closing.join(0.1)
        assert order == []
        server.open.set()
        closing.join(PATIENCE)
    assert order == ["callback", "closed"]


@pytest.mark.parametrize("how", [{"cancel": True}, {"timeout": 0.1}], ids=["at once", "in time"])
def test_close_cancels_remaining_calls_with_and_without_callbacks(how: dict[str, Any]) -> None:
    got: list[Any] = []
    after: list[Any] = []

    def again(value: Any) -> None:
        got.append(value)
        register(client, after.append)

    def block() -> None:
        got.append(pymdc.api.Users("a@b.com", client=client).register())

    with GatedServer() as server:
        client = pymdc.Client(server.endpoint, workers=2)
        calls = [register(client, again) for _ in range(20)]
        blocking = [threading.Thread(target=block) for _ in range(3)]
        for thread in blocking:
            thread.start()
        server.await_requests(5)
        began = time.monotonic()
        client.close(**how)
        assert time.monotonic() - began < AT_ONCE
        for thread in blocking:
            thread.join(PATIENCE)
        server.open.set()
    assert not any(call.is_alive() for call in calls)
    assert [type(value) for value in got] == [Cancelled] * 23
    assert [type(value) for value in after] == [Closed] * 20


def test_client_may_be_closed_in_the_callback_of_another_client() -> None:
    got: list[Any] = []

    def use_another(value: Any) -> None:
        with pymdc.Client(server.endpoint) as inner:
            for _ in range(3):
                register(inner, got.append)

    with RawServer(answer_all) as server, pymdc.Client(server.endpoint) as client:
        register(client, use_another).join(PATIENCE)
    assert got == [[]] * 3


def test_client_closed_by_its_callback_finishes_its_other_calls() -> None:
    closed = threading.Event()
    got: list[Any] = []

    def close(value: Any) -> None:
        client.close()
        register(client, got.append).join(PATIENCE)
        closed.set()

    with GatedServer() as server:
        client = pymdc.Client(server.endpoint, workers=3)
        for _ in range(2):
            register(client, got.append)
        server.await_requests(2)
        client.run(lambda scope: None, close)
        assert closed.wait(PATIENCE)
        server.open.set()
        client.close()
    assert [type(value) for value in got] == [Closed, list, list]


def test_close_waits_for_a_blocking_call_in_the_callback_of_another_client() -> None:
    got: list[Any] = []
    with GatedServer() as server, pymdc.Client("http://127.0.0.1:1") as other:
        client = pymdc.Client(server.endpoint)
        user = pymdc.api.Users("a@b.com", client=client)
        other.run(lambda scope: None, lambda value: got.append(user.register()))
        server.await_requests(1)
        closing = threading.Thread(target=client.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        server.open.set()
        closing.join(PATIENCE)
    assert got == [[]]


def test_client_may_be_closed_by_work_that_its_callback_gives_another_client() -> None:
    done = threading.Event()

    def close_both(scope: CancelScope) -> None:
        client.close()
        other.close()

    def use_another(value: Any) -> None:
        other.run(close_both, None)
        done.set()

    client, other = (pymdc.Client("http://127.0.0.1:1") for _ in range(2))
    client.run(lambda scope: None, use_another)
    assert done.wait(PATIENCE)


def test_close_cancels_calls_queued_behind_a_blocking_callback() -> None:
    blocked, delivered, order = threading.Event(), threading.Event(), list[str]()

    def block(value: Any) -> None:
        blocked.set()
        delivered.wait(PATIENCE)
        order.append("blocked")

    def deliver(value: Any) -> None:
        order.append(type(value).__name__)
        delivered.set()

    with RawServer(answer_all) as server:
        client = pymdc.Client(server.endpoint, workers=1)
        register(client, block)
        assert blocked.wait(PATIENCE)
        register(client, deliver)
        client.close(cancel=True)
    assert order == ["Cancelled", "blocked"]


def test_close_with_timeout_cancels_blocking_calls() -> None:
    got: list[Any] = []
    with GatedServer() as server:
        client = pymdc.Client(server.endpoint)
        users = pymdc.api.Users("a@b.com", client=client)
        blocking = threading.Thread(target=lambda: got.append(users.register()))
        blocking.start()
        server.await_requests(1)
        client.close(timeout=0.1)
        blocking.join(AT_ONCE)
        assert not blocking.is_alive()
        server.open.set()
    assert [type(value) for value in got] == [Cancelled]
    assert str(got[0]).endswith(": the client was closed")


def test_call_that_starts_after_close_is_cancelled() -> None:
    client = pymdc.Client("http://127.0.0.1:1")
    client.close(cancel=True)
    assert isinstance(client._pool.capture(lambda scope: "sent", CancelScope()), Cancelled)


def test_close_leaks_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    """Calls end in every way; the fixture ``no_leaks`` compares."""
    with RawServer(answer_all) as good_server, RawServer(wait) as silent:
        for ask in MODES.values():
            endpoints = [good_server.endpoint, silent.endpoint, "http://127.0.0.1:1"]
            for endpoint in endpoints:
                with pymdc.Client(endpoint, timeout=0.1) as client:
                    ask(pymdc.api.Users("a@b.com", client=client).register)
                    ask(pymdc.api.Files("b", pymdc.ECDSA(), client=client).upload, "missing")
            with websocket(send_shard) as url, pointer_server([pointer(url)]) as endpoint:
                with pymdc.Client(endpoint) as client:
                    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
                    ask(files.download, HASH, "token", to=tmp_path / "out")
        with pymdc.Client(silent.endpoint) as client:
            register(client, lambda value: None).cancel()


def test_idle_threads_end_and_are_replaced() -> None:
    before, seen = set(threading.enumerate()), set[threading.Thread]()
    workers: list[threading.Thread] = []

    def look(value: Any) -> None:
        workers.append(threading.current_thread())
        seen.update(threading.enumerate())

    with RawServer(answer_all) as server, pymdc.Client(server.endpoint) as client:
        client._pool.threads.idle_seconds = 0.05
        for _ in range(2):
            assert register(client, look).result(PATIENCE) == []
            for thread in seen - before:
                if thread.name.startswith("pymdc-"):
                    thread.join(PATIENCE)
                    assert not thread.is_alive()
    assert workers[0] is not workers[1]


PROGRAM = """
import sys
import threading
import pymdc

user = pymdc.api.Users("a@b.com", "pass")

def say(text):
    sys.stdout.write(text + "\\n")

def callback(number):
    def told(value):
        assert isinstance(value, pymdc.PymdcError)
        say(f"{number} {type(value).__name__}")
    return told

def ready_at_the_end():
    threading.main_thread().join()
    threading.Event().wait(0.2)  # until it waits for the callbacks; nothing tells when it does
    say("ready")
"""
BLOCKING = """
say("ready")
user.register()
"""
WITH = """
say("ready")
with pymdc.Client() as client:
    pymdc.api.Users("a@b.com", client=client).register()
"""
JOIN = """
calls = [user.register(callback(number)) for number in range(40)]
say("ready")
calls[-1].join()
"""
MAIN_THREAD_ENDED = """
for number in range(40):
    user.register(callback(number))
threading.Thread(target=ready_at_the_end, daemon=True).start()
"""
SLOW_CALLBACK = """
def slow(value):
    callback("slow")(value)
    threading.Event().wait(60)

with pymdc.Client() as client:
    pymdc.api.Users("a@b.com", client=client).register(slow)
    say("ready")
    threading.Event().wait()
"""
CALL_IN_CALLBACK = """
def nested(value):
    try:
        callback("nested")(user.register())
    finally:
        say("cleaned up")

pymdc.Client().run(lambda scope: None, nested)
threading.Thread(target=ready_at_the_end, daemon=True).start()
"""
# As a SIGINT that comes just before the main thread waits: noted, but it wakes nobody.
NOTED_ONLY = """
import _thread

def press():
    ready_at_the_end()
    _thread.interrupt_main()

for number in range(5):
    user.register(callback(number))
threading.Thread(target=press, daemon=True).start()
"""
CLOSED_WAKEUP_DESCRIPTOR = """
import os, signal

unused = 100  # which nothing that is opened later gets
reader, writer = os.pipe()
os.set_blocking(os.dup2(writer, unused), False)
signal.set_wakeup_fd(unused)
os.close(unused)
"""
IN_A_CHILD = """
import os, threading
from pymdc._calls.monitor import monitor

monitor.prepare_wake()  # as Python does when the main thread ends
child = os.fork()
if not child:
    monitor.prepare_wake()
    os._exit(monitor._to_wake != threading.get_ident())
print(os.waitpid(child, 0)[1])
"""
RETRYING = """
def again(value):
    say(type(value).__name__)
    threading.Event().wait(0.2)
    user.register(again)

for number in range(5):
    user.register(again)
threading.Thread(target=ready_at_the_end, daemon=True).start()
"""


def interrupt(script: str, requests: int) -> tuple[list[str], str, int, float]:
    """Run *script*, send SIGINT once it runs; return its output, errors, status and seconds."""
    pipe = subprocess.PIPE
    with GatedServer() as server:
        environment = {**os.environ, "PYMDC_ENDPOINT": server.endpoint}
        command = [sys.executable, "-u", "-W", "error", "-c", PROGRAM + script]
        with subprocess.Popen(
            command, env=environment, stdout=pipe, stderr=pipe, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            server.await_requests(requests)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=MINUTE)
            seconds = time.monotonic() - began
        assert not server.arrived.acquire(blocking=False), "nothing is sent after it"
        server.open.set()
    return printed.splitlines(), errors, process.returncode, seconds


@pytest.mark.parametrize("script", [BLOCKING, WITH], ids=["plain", "in a with block"])
def test_ctrl_c_in_a_blocking_call_ends_the_process(script: str) -> None:
    printed, errors, status, seconds = interrupt(script, 1)
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert (printed, status) == ([], -signal.SIGINT)
    assert seconds < AT_ONCE


def test_ctrl_c_in_a_blocking_call_closes_its_connection() -> None:
    def press(connection: socket.socket) -> None:
        read_request(connection)
        main = threading.main_thread().ident
        assert main
        signal.pthread_kill(main, signal.SIGINT)

    with HoldingServer(press) as server, pymdc.Client(server.endpoint) as client:
        with pytest.raises(KeyboardInterrupt):
            pymdc.api.Users("a@b.com", client=client).register()
        server.released.set()
        assert server.ended.wait(AT_ONCE)


@pytest.mark.parametrize(
    "script", [JOIN, MAIN_THREAD_ENDED], ids=["in join", "when the main thread has ended"]
)
def test_first_ctrl_c_cancels_every_callback_and_ends_the_program(script: str) -> None:
    printed, errors, _, seconds = interrupt(script, 32)
    assert "KeyboardInterrupt" in errors
    assert sorted(printed) == sorted(f"{number} Cancelled" for number in range(40))
    assert seconds < AT_ONCE


@pytest.mark.parametrize(
    "before", ["", CLOSED_WAKEUP_DESCRIPTOR], ids=["plain", "closed descriptor"]
)
def test_ctrl_c_just_before_the_wait_for_callbacks_cancels_them(before: str) -> None:
    with GatedServer() as server:
        settings = {"PYMDC_ENDPOINT": server.endpoint, "PYMDC_TIMEOUT": str(SOON)}
        ended = python("-W", "error", "-c", PROGRAM + before + NOTED_ONLY, env=settings)
        server.open.set()
    assert "KeyboardInterrupt" in ended.stderr
    cancelled = sorted(f"{number} Cancelled" for number in range(5))
    assert sorted(ended.stdout.splitlines()) == [*cancelled, "ready"]


def test_child_that_inherits_the_handler_wakes_its_main_thread() -> None:
    assert python("-c", IN_A_CHILD).stdout == "0\n"


def has_ended(thread: threading.Thread) -> bool:
    thread.join(AT_ONCE)
    return not thread.is_alive()


class BusyAtTheEnd:
    """The pool of a program that ends just after the pool was idle, and has a call again."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.asked, self.ended, self.over = monitor, 0, False, False

    @property
    def idle(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            self.monitor.at_exit()  # which finds the call, and cancels it
            self.ended = True
        return self.over or not (self.ended or self.asked == 3)

    def check_deadlines(self) -> None:
        pass

    def cancel(self, why: str) -> None:
        pass


def test_monitor_ends_with_the_program_whatever_it_just_does() -> None:
    monitor = Monitor()
    pool = BusyAtTheEnd(monitor)
    monitor.add(pool)
    monitor.hold()
    thread = monitor._thread
    assert thread
    ended = has_ended(thread)
    pool.over = True
    assert ended


class BusyAfterTheEnd(BusyAtTheEnd):
    """The pool of a program that ends while it is idle, and then has calls again."""

    @property
    def idle(self) -> bool:
        return self.over or threading.current_thread() is not self.monitor._thread


def test_monitor_that_is_busy_again_after_the_end_ends_too() -> None:
    monitor = Monitor()
    pool = BusyAfterTheEnd(monitor)
    monitor.add(pool)
    monitor.hold()
    thread = monitor._thread
    assert thread
    monitor.at_exit()
    ended = has_ended(thread)
    pool.over = True
    assert ended


TOLD_OF_SIGNALS = """
import signal, socket

reader, writer = socket.socketpair()
reader.setblocking(False)
writer.setblocking(False)
%s

def told(value):
    try:
        say(str(reader.recv(100)))
    except BlockingIOError:
        say(type(value).__name__)
    reader.close()
    writer.close()

user.register(told)
"""


@pytest.mark.parametrize(
    "uses",
    [
        "signal.set_wakeup_fd(writer.fileno())",
        "signal.signal(signal.SIGURG, lambda *_: writer.send(b'it is sent'))",
    ],
    ids=["wakeup descriptor", "handler"],
)
def test_wait_for_callbacks_sends_no_signal_to_a_program_that_uses_it(uses: str) -> None:
    with RawServer(wait) as server:
        settings = {"PYMDC_ENDPOINT": server.endpoint, "PYMDC_TIMEOUT": "1"}
        ended = python("-W", "error", "-c", PROGRAM + TOLD_OF_SIGNALS % uses, env=settings)
    assert (ended.stdout, ended.stderr) == ("Timeout\n", "")


def test_first_ctrl_c_ends_callbacks_that_retry_on_every_error() -> None:
    printed, errors, _, seconds = interrupt(RETRYING, 5)
    assert "KeyboardInterrupt" in errors
    assert len(printed) >= 5
    assert set(printed) == {"Cancelled"}
    assert seconds < SOON


def test_first_ctrl_c_ends_a_with_block_during_a_slow_callback() -> None:
    printed, errors, _, seconds = interrupt(SLOW_CALLBACK, 1)
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert printed == ["slow Cancelled"]
    assert seconds < SOON


def test_first_ctrl_c_cancels_the_blocking_call_in_a_callback() -> None:
    printed, errors, _, seconds = interrupt(CALL_IN_CALLBACK, 1)
    assert "KeyboardInterrupt" in errors
    assert printed == ["nested Cancelled", "cleaned up"]
    assert seconds < AT_ONCE


CALLING = """
import os, pymdc, random, signal, sys, threading

client = pymdc.Client(sys.argv[1], workers=4)
user = pymdc.api.Users("a@b.com", "pass", client=client)
made, told, inside, presses = [], [], threading.Event(), 100
caught, dropped = 0, 0


def note(raised):  # Python drops what is raised while an object goes away
    global dropped
    if raised.exc_type is KeyboardInterrupt:
        dropped += 1
    else:
        sys.__unraisablehook__(raised)


def press():
    for _ in range(presses):
        inside.wait()
        inside.clear()
        threading.Event().wait(random.random() / 100)  # so that it comes wherever a call may be
        os.kill(os.getpid(), signal.SIGINT)


def call_until_a_press():
    before = dropped
    inside.set()
    while dropped == before:
        made.append(user.register(told.append))
        made.append(user.register())


sys.unraisablehook = note
threading.Thread(target=press).start()
while caught + dropped < presses:
    try:
        call_until_a_press()
    except KeyboardInterrupt:
        caught += 1
client.close()
calls = [call for call in made if isinstance(call, pymdc.Call)]
assert client._pool.wait_idle(0)
assert not any(call.is_alive() for call in calls)
assert len(calls) <= len(told) <= len(calls) + presses, (len(calls), len(told))
"""


def test_ctrl_c_while_calls_start_loses_no_call() -> None:
    with RawServer(answer_all) as server:
        ended = python("-c", CALLING, server.endpoint)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


AT_A_PROMPT = """\
import pymdc, threading
raise KeyboardInterrupt
pymdc.api.Users("a@b.com", "pass").register(print)
pause = threading.Event().wait
main = threading.main_thread()
threading.Thread(target=lambda: (main.join(), pause(1), print("ended", flush=True))).start()
"""


def test_ctrl_c_at_a_prompt_cancels_no_calls() -> None:
    pipe = subprocess.PIPE
    with GatedServer() as server:
        environment = {**os.environ, "PYMDC_ENDPOINT": server.endpoint}
        command = [sys.executable, "-i", "-q", "-u", "-W", "error"]
        with subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(AT_A_PROMPT)
            process.stdin.close()
            lines = iter(process.stdout.readline, "")
            before = list(itertools.takewhile(lambda line: line != "ended\n", lines))
            server.open.set()
            after = list(lines)
    assert not any("Cancelled" in line or "cancelled" in line for line in before)
    assert after == ["[]\n"]


THREE_CALLS = """
for number in range(3):
    user.register(callback(number))
"""


def test_program_with_a_silent_bridge_ends_at_the_timeout() -> None:
    with RawServer(wait) as server:
        settings = {"PYMDC_ENDPOINT": server.endpoint, "PYMDC_TIMEOUT": "0.3"}
        done = python("-c", PROGRAM + THREE_CALLS, env=settings)
    assert sorted(done.stdout.splitlines()) == [f"{n} Timeout" for n in range(3)]
    assert (done.stderr, done.returncode) == ("", 0)


def test_program_without_a_bridge_ends() -> None:
    done = python("-c", PROGRAM + THREE_CALLS)
    assert sorted(done.stdout.splitlines()) == [f"{n} ConnectError" for n in range(3)]
    assert done.returncode == 0


# As Python 3.12.0 to 3.12.2 are once the main thread has ended.
WITHOUT_THREADS = """
import pymdc, sys, threading

client = pymdc.Client(sys.argv[1], timeout=(10, 20), total=0.5, workers=4)
client._pool.threads.idle_seconds = 0.05
user = pymdc.api.Users("a@b.com", "pass", client=client)

def callback(value):
    threading.main_thread().join()
    threading.stack_size(1 << 46)  # which no thread can have
    go_on()

def go_on():
    %s

user.register(callback)
"""


def answer_first(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(ANSWER)
    wait(connection)


@pytest.mark.parametrize("call", ["print(user.register())", "user.register(print)"])
def test_total_is_enforced_if_no_thread_can_start(call: str) -> None:
    with RawServer(answer_first) as server:
        done = python("-c", WITHOUT_THREADS % call, server.endpoint)
    assert "not done within 0.5 s" in done.stdout
    assert (done.stderr, done.returncode) == ("", 0)


def test_callback_may_close_its_client_if_no_thread_can_start() -> None:
    close = "client.close(); print(type(user.register()).__name__)"
    with RawServer(answer_all) as server:
        done = python("-c", WITHOUT_THREADS % close, server.endpoint)
    assert (done.stdout, done.stderr, done.returncode) == ("Closed\n", "", 0)


def test_callback_returns_before_callbacks_of_its_calls_if_no_thread_can_start() -> None:
    two = "client.run(lambda scope: 'inner', print); print('outer')"
    with RawServer(answer_all) as server:
        done = python("-c", WITHOUT_THREADS % two, server.endpoint)
    assert (done.stdout, done.stderr, done.returncode) == ("outer\ninner\n", "", 0)


AT_EXIT = """
import atexit, sys

def call():
    import pymdc
    user = pymdc.api.Users("a@b.com", "pass")

    def chain(value):
        show(value)
        user.register(show)

    def show(value):
        sys.stdout.write(f"{value}\\n")

    for _ in range(3):
        user.register(chain)
    show(user.register())

%s
"""


@pytest.mark.parametrize("place", [0, 1], ids=["first", "last"])
def test_callbacks_of_atexit_functions_run(place: int) -> None:
    lines = ["atexit.register(call)"]
    lines.insert(place, "import pymdc")
    with RawServer(answer_all) as server:
        ended = python("-c", AT_EXIT % "\n".join(lines), env={"PYMDC_ENDPOINT": server.endpoint})
    assert (ended.stdout, ended.stderr, ended.returncode) == ("[]\n" * 7, "", 0)
