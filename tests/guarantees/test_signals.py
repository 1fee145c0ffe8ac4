"""Signal handlers that make calls or raise at any line of the main thread."""

from __future__ import annotations

import pytest
from processes import python
from servers import RawServer, answer_all, wait

BEGIN = """
import faulthandler, os, pymdc, signal, sys, threading

faulthandler.dump_traceback_later(50, exit=True)
made, told = [], []

def register(client, *callback):
    return pymdc.api.Users("a@b.com", "pass", client=client).register(*callback)

def make_both(client):
    assert register(client) == [] or client._closed
    made.append(register(client, told.append))

def see_that_each_is_told():
    for call in made:
        call.join()
    assert len(told) == len(made) == len(set(made))
"""

# The handler runs once at each line of pymdc, and of what it takes locks from.
AT_EACH_LINE = """
modules = ("pymdc", "threading", "queue", "concurrent")
lines, client = set(), None

def trace(frame, event, arg):
    name = frame.f_globals.get("__name__", "")
    if not name.startswith(modules):
        return None
    line = (action, frame.f_code.co_filename, frame.f_lineno)
    if event == "line" and line not in lines:
        lines.add(line)
        signal.raise_signal(signal.SIGUSR1)
    return trace

signal.signal(signal.SIGUSR1, lambda number, frame: make_both(client))

def call(client):
    register(client)

def call_back(client):
    made.append(register(client, told.append))

def join(client):
    made.append(register(client, told.append))
    made[-1].join()
    made[-1].result()

def cancel(client):
    queued = [register(client, told.append) for _ in range(5)]
    made.extend(queued)
    for call in reversed(queued):
        call.cancel()

def close(client):
    make_both(client)
    client.close()

def close_and_cancel(client):
    make_both(client)
    client.close(cancel=True)

for action in (call, call_back, join, cancel, close, close_and_cancel):
    for workers, warm in ((1, False), (4, True)):
        lines = {line for line in lines if line[0] is not action}
        client = pymdc.Client(sys.argv[1], workers=workers)
        if warm:
            make_both(client)
        sys.settrace(trace)
        action(client)
        sys.settrace(None)
        client.close()
see_that_each_is_told()
assert len(lines) > 300, len(lines)
"""

# Python runs the handler between any two instructions.
NOW_AND_THEN = """
client = pymdc.Client(sys.argv[1], workers=2)
calls = [made]
busy = False

def handle(number, frame):
    global busy
    if not busy:
        busy = True
        make_both(client)
        busy = False

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range(400):
    register(client)
    made.append(register(client, told.append))
    if number % 3 == 0:
        made[-1].cancel()
    if number % 5 == 0:
        made[-1].join()
    if number % 20 == 0:
        before = client
        client = pymdc.Client(sys.argv[1], workers=1 + number % 3)
        before.close(cancel=number % 40 == 0)
signal.setitimer(signal.ITIMER_REAL, 0)
client.close()
see_that_each_is_told()
"""


# At each line of a call in its turn, the client is closed: by a handler, or by another thread.
CLOSED_AT_EACH_LINE = """
def close(other):
    closing = threading.Thread(target=client.close, kwargs={"cancel": True})
    closing.start() if other else client.close(cancel=True)
    if other:
        closing.join()

def trace(frame, event, arg):
    global left
    if not frame.f_globals.get("__name__", "").startswith("pymdc"):
        return None
    left -= event == "line"
    if left == 0 and event == "line":
        close(other)
    return trace

for other in (False, True):
    line, left = 0, 0
    while left <= 0:
        line += 1
        left = line
        client = pymdc.Client(sys.argv[1], workers=1)
        sys.settrace(trace)
        call = register(client, told.append)
        sys.settrace(None)
        made.append(call)
        call.join(20)
        assert call.done(), (line, other)
        client.close()
    assert line > 50, line
see_that_each_is_told()
"""

# A handler raises once at each line of what a script does with a call, and at each return. None
# runs at the end of a block that a lock is held for, where tracing shows the line of its `with`
# once more.
RAISES = """
import concurrent.futures, itertools, linecache, warnings
import pymdc.client

warnings.simplefilter("ignore", ResourceWarning)  # of a connection that was about to be closed

class Raised(Exception):
    pass

pymdc.client._CONNECTIONS = 2  # each of them is closed by the same lines
modules = ("pymdc", "threading", "queue", "concurrent", "urllib3")

def trace(frame, event, arg):
    if not frame.f_globals.get("__name__", "").startswith(modules):
        return None
    place = (frame.f_code, frame.f_lineno, event)
    if event in ("line", "return") and place not in passed:
        passed.add(place)
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "return" or not line.startswith("with "):
            raise Raised
    return trace

def in_time(wait):
    try:
        wait(timeout=0.001)
    except concurrent.futures.TimeoutError:  # another class on 3.10
        pass

def do_both():
    register(client)
    register(client, lambda value: told.append("another"))

def leave():
    with client:
        register(client)

actions = {
    "is_alive": lambda call: call.is_alive(),
    "done": lambda call: call.done(),
    "running": lambda call: call.running() or call.cancelled(),
    "repr": lambda call: repr(call),
    "join": lambda call: call.join(0.001),
    "result": lambda call: in_time(call.result),
    "exception": lambda call: in_time(call.exception),
    "cancel": lambda call: call.cancel(),
    "calls": lambda call: do_both(),
    "close": lambda call: client.close(),
    "close and cancel": lambda call: client.close(cancel=True),
    "with": lambda call: leave(),
}
ends = {"close", "close and cancel", "with"}
for name, which in itertools.product(actions, (0, 1)):
    if which and name in {"calls", *ends}:  # these do nothing with the call
        continue
    passed, raised = set(), True
    while raised:
        told.clear()
        go = threading.Event()
        client = pymdc.Client(sys.argv[1], workers=1)
        register(client)  # so that there is a connection
        calls = [
            client.run(lambda scope: go.wait(20), lambda value, place=place: told.append(place))
            for place in ("first", "second")
        ]
        if name in ends:
            go.set()
        raised = False
        sys.settrace(trace)
        try:
            actions[name](calls[which])  # one that runs, or one that waits for its turn
        except Raised:
            raised = True
        sys.settrace(None)
        go.set()
        for call in calls:
            call.join(20)
            assert call.done(), (name, len(passed), call)
        assert client._pool.wait_idle(20), (name, len(passed))
        client.close()
        assert {*told} >= {"first", "second"}, (name, len(passed), told)
        assert len(told) == len({*told}), (name, len(passed), told)
        del client, call, calls
"""


def test_signal_handler_may_raise_at_any_line() -> None:
    with RawServer(answer_all) as server:
        ended = python("-c", BEGIN + RAISES, server.endpoint)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


# Python goes on with a wait after a handler, and some of its waits then forget their timeout.
OUTLASTED = """
import time

def handle(number, frame):
    while time.monotonic() < last:
        pass

signal.signal(signal.SIGALRM, handle)
client = pymdc.Client(sys.argv[1])
made.append(register(client, told.append))
last = time.monotonic() + 0.4
signal.setitimer(signal.ITIMER_REAL, 0.1)
client.close(timeout=0.3)
see_that_each_is_told()
assert isinstance(told[0], pymdc.Cancelled), told
"""


def test_signal_handler_longer_than_the_timeout_of_close_does_not_block_close() -> None:
    with RawServer(wait) as server:
        ended = python("-c", BEGIN + OUTLASTED, server.endpoint)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    "program",
    [AT_EACH_LINE, NOW_AND_THEN, CLOSED_AT_EACH_LINE],
    ids=["each line", "now and then", "closed at each line"],
)
def test_signal_handler_may_make_calls_at_any_line(program: str) -> None:
    with RawServer(answer_all) as server:
        ended = python("-c", BEGIN + program, server.endpoint)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)
