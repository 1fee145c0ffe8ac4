"""A call in every order of being made, begun, answered, cancelled, timed out, closed and forked."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modes import PATIENCE

import pymdc
from pymdc import Cancelled
from pymdc._calls.cancel_scope import CancelScope
from pymdc.exceptions import Closed, ConnectionLost, Timeout

# Python warns of a fork among threads, which is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

WHICH = st.integers(0, 9)


class Waiting:
    """A call whose work waits for a byte; with *chains*, its callback makes another one."""

    def __init__(self, machine: Calls, chains: bool) -> None:
        self._machine, self._chains = machine, chains
        self._here, self._there = socket.socketpair()
        self.began = threading.Event()
        self.got: list[Any] = []
        self.call: pymdc.Call = machine.client.run(self._work, self._told)

    def _work(self, scope: CancelScope) -> str:
        self._scope = scope
        scope.attach(self._here)
        self.began.set()
        if not self._here.recv(1):
            raise ConnectionLost("the connection ended")
        return "value"

    def _told(self, value: Any) -> None:
        self.got.append(value)
        if self._chains:
            self._machine.add(chains=False)
        raise ArithmeticError("from a callback")

    def answer(self) -> None:
        self._there.sendall(b"!")

    def expire(self) -> None:
        self._scope.check_deadline(math.inf)

    def came_to(self, kind: type) -> None:
        """See that the call is done, for good, and that its callback got one value of *kind*."""
        self.call.join(PATIENCE)
        assert not self.call.is_alive()
        assert [type(value) for value in self.got] == [kind]
        assert self.call.result() is self.got[0]
        assert not self.call.cancel()
        self._here.close()
        self._there.close()


class Calls(RuleBasedStateMachine):
    """Calls of one client: those that are *left*, in their order, and those that are *done*."""

    @initialize(workers=st.integers(1, 3))
    def open(self, workers: int) -> None:
        self.threads = set(threading.enumerate())
        self.client = pymdc.Client("http://127.0.0.1:1", workers=workers)
        self.workers = workers
        self.left: list[Waiting] = []
        self.done: list[tuple[Waiting, type]] = []
        self.closing: threading.Thread | None = None
        self.closed = False

    def add(self, chains: bool) -> None:
        self.left.append(Waiting(self, chains))

    def take(self, which: int, among: int) -> Waiting:
        return self.left[which % min(among, len(self.left))]

    def build_request(self, waiting: Waiting, kind: type) -> None:
        waiting.came_to(kind)
        self.left.remove(waiting)
        self.done.append((waiting, kind))

    @rule(chains=st.booleans())
    def make(self, chains: bool) -> None:
        self.add(chains)

    @precondition(lambda self: self.left)
    @rule(which=WHICH)
    def answer(self, which: int) -> None:
        waiting = self.take(which, self.workers)
        waiting.answer()
        self.build_request(waiting, str)

    @precondition(lambda self: self.left)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        waiting = self.take(which, len(self.left))
        assert waiting.call.cancel()
        self.build_request(waiting, Cancelled)

    @precondition(lambda self: self.left)
    @rule(which=WHICH)
    def expire(self, which: int) -> None:
        waiting = self.take(which, self.workers)
        waiting.expire()
        assert not waiting.call.cancel()
        self.build_request(waiting, Timeout)

    @precondition(lambda self: self.left)
    @rule(which=WHICH)
    def cancel_while_the_answer_comes(self, which: int) -> None:
        waiting = self.take(which, self.workers)
        waiting.answer()
        self.build_request(waiting, Cancelled if waiting.call.cancel() else str)

    @rule()
    def call_without_callback(self) -> None:
        value = self.client.run(lambda scope: "blocking", None)
        assert value == "blocking" or (self.closed and isinstance(value, Closed))

    @precondition(lambda self: self.closing is None)
    @rule()
    def close(self) -> None:
        self.closing = threading.Thread(target=self.client.close)
        self.closing.start()

    @precondition(lambda self: not self.closed)
    @rule(timeout=st.sampled_from([None, 0]))
    def close_and_cancel(self, timeout: float | None) -> None:
        before = tuple(self.left)
        self.client.close(timeout, cancel=timeout is None)
        self.closed = True
        for waiting in before:
            self.build_request(waiting, Cancelled)

    @rule()
    def fork(self) -> None:
        child = os.fork()
        if not child:
            signal.alarm(PATIENCE)
            try:
                self.look_from_child()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0

    def look_from_child(self) -> None:
        for waiting in self.left:
            waiting.call.join(PATIENCE)
            assert not waiting.call.is_alive()
            assert not waiting.call.cancel()
            assert isinstance(waiting.call.result(), Cancelled)
            assert waiting.got == []
        for waiting, kind in self.done:
            waiting.came_to(kind)
        self.call_without_callback()
        self.client.close()

    @invariant()
    def as_many_run_as_there_are_workers_and_the_others_wait(self) -> None:
        while self.closed and self.left:
            self.build_request(self.left[0], Closed)
        for waiting in self.left[: self.workers]:
            assert waiting.began.wait(PATIENCE)
        for waiting in self.left[self.workers :]:
            assert not waiting.began.is_set()
        for waiting in self.left:
            assert waiting.call.is_alive()
        if self.closing and not self.left:
            self.closing.join(PATIENCE)
            assert not self.closing.is_alive()
            self.closed = True

    def teardown(self) -> None:
        while self.left:
            self.answer(0)
        self.client.close()
        if self.closing:
            self.closing.join(PATIENCE)
        assert set(threading.enumerate()) <= self.threads
        for waiting, kind in self.done:
            waiting.came_to(kind)


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, derandomize=True
)
