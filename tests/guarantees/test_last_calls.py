"""Calls made while Python ends: the value of each is an answer or Closed."""

from __future__ import annotations

import pytest
from processes import python
from servers import RawServer, answer_all

PROGRAM = """
import os, pymdc, sys

client = pymdc.Client(os.environ["PYMDC_ENDPOINT"]) if "own" in sys.argv else None

def say(what, *values, write=os.write):
    write(1, f"{what} {values}\\n".encode())

class Last:
    def __init__(self):
        self.user = pymdc.api.Users("a@b.com", "pass", client=client)

    def call(self, say=say, error=pymdc.exceptions.Closed):
        for value in (self.user.register(), self.call_back()):
            say("done" if value == [] else "told" if type(value) is error else "lost", value)

    def call_back(self):
        got = []
        call = self.user.register(got.append)
        call.join()
        assert got[0] is call.result() and len(got) == 1 and not call.is_alive()
        return got[0]

    def __del__(self):
        self.call()

if "warm" in sys.argv:
    user = pymdc.api.Users("a@b.com", "pass", client=client)
    user.register()
    user.register(lambda value: None)
"""
IN_TIME = {"weakref.finalize", "a thread"}  # before other threads stand still
OWNERS = {
    "an object of the module": "last = Last()",
    "an object in a cycle": "last = Last(); last.self = last",
    "an object in sys.modules": "sys.modules['last'] = Last()",
    "an object in builtins": "import builtins; builtins.last = Last()",
    "a generator": """
def calling(last):
    try:
        yield
    finally:
        last.call()

Last.__del__ = lambda self: None
generator = calling(Last())
next(generator)
""",
    "a generator in a with block": """
def calling():
    Last.__del__ = lambda self: None
    with pymdc.Client(os.environ["PYMDC_ENDPOINT"]) as inner:
        last = Last()
        inner.run(lambda scope: None, lambda value: None).join()
        try:
            yield
        finally:
            last.call()

generator = calling()
next(generator)
""",
    "weakref.finalize": """
import weakref
Last.__del__ = lambda self: None
last = Last()
weakref.finalize(Last, last.call)
""",
    "a thread": """
import threading
def call():
    threading.main_thread().join()
    last.call()
Last.__del__ = lambda self: None
last = Last()
threading.Thread(target=call).start()
""",
}


@pytest.mark.parametrize("client", ["default", "own"])
@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("owner", OWNERS)
def test_call_during_finalization_succeeds_or_is_closed(
    owner: str, state: str, client: str
) -> None:
    what = "done" if owner in IN_TIME else "told"
    with RawServer(answer_all) as server:
        settings = {"PYMDC_ENDPOINT": server.endpoint}
        ended = python("-c", PROGRAM + OWNERS[owner], client, state, env=settings)
    assert [line.split()[0] for line in ended.stdout.splitlines()] == [what, what]
    assert (ended.stderr, ended.returncode) == ("", 0)


DAEMON = """
import os, pymdc, threading

def call_on_and_on():
    user = pymdc.api.Users("a@b.com", "pass")
    while True:
        user.register()
        user.register(lambda value: None)
        called.set()

called = threading.Event()
threading.Thread(target=call_on_and_on, daemon=True).start()
called.wait()
"""


def test_daemon_thread_with_endless_calls_does_not_keep_python_alive() -> None:
    with RawServer(answer_all) as server:
        ended = python("-c", DAEMON, env={"PYMDC_ENDPOINT": server.endpoint})
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


KEPT = """
import builtins, os, pymdc, threading

client = pymdc.Client(os.environ["PYMDC_ENDPOINT"])
began, for_ever = threading.Event(), threading.Event()

def hold(value):
    began.set()
    for_ever.wait()

class Last:
    def __del__(self, write=os.write):
        self.call.join()
        self.call.cancel()
        write(1, f"{self.call.result()!r}\\n".encode())
        client.close()
        write(1, b"closed\\n")

builtins.last = Last()
builtins.last.call = client.run(lambda scope: "value", hold)
began.wait()
# so that Python ends although a callback has not returned
pymdc._calls.monitor.monitor._threads.clear()
"""


def test_frozen_threads_are_not_waited_for() -> None:
    ended = python("-c", KEPT)
    assert ended.stdout == "Cancelled('Python ended before it was done')\nclosed\n"
    assert (ended.stderr, ended.returncode) == ("", 0)
