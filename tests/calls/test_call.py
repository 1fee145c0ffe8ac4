"""Calls in every order of start, answer, cancel, timeout, close and fork."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Set
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

# Python warns of a fork in a program with threads, which these tests do.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

WHICH = st.integers(0, 9)


class HeldCall:
    """A call whose work waits for a byte; with *chains*, its callback makes another call."""

    def __init__(self, machine: Calls, chains: bool) -> None:
        self._machine, self._chains = machine, chains
        self._here, self._there = socket.socketpair()
        self.began = threading.Event()
        self.got: list[Any] = []
        self.call: pymdc.Call = machine.client.run(self._work, self._callback)

    def _work(self, scope: CancelScope) -> str:
        self._scope = scope
        scope.attach(self._here)
        self.began.set()
        if not self._here.recv(1):
            raise ConnectionLost("the connection ended")
        return "value"

    def _callback(self, value: Any) -> None:
        self.got.append(value)
        if self._chains:
            self._machine.add(chains=False)
        raise ArithmeticError("from a callback")

    def answer(self) -> None:
        self._there.sendall(b"!")

    def expire(self) -> None:
        self._scope.check_deadline(math.inf)

    def expect(self, kind: type) -> None:
        """Check that the call is done and that its callback got one value, of *kind*."""
        self.call.join(PATIENCE)
        assert not self.call.is_alive()
        assert [type(value) for value in self.got] == [kind]
        assert self.call.result() is self.got[0]
        assert not self.call.cancel()
        self._here.close()
        self._there.close()


class Calls(RuleBasedStateMachine):
    """Calls of one client: the *unfinished* ones, in order, and those that are *done*."""

    threads: Set[threading.Thread] = frozenset()

    @initialize(workers=st.integers(1, 3))
    def open(self, workers: int) -> None:
        self.threads = set(threading.enumerate())
        self.client = pymdc.Client("http://127.0.0.1:1", workers=workers)
        self.workers = workers
        self.unfinished: list[HeldCall] = []
        self.done: list[tuple[HeldCall, type]] = []
        self.closing: threading.Thread | None = None
        self.closed = False

    def add(self, chains: bool) -> None:
        self.unfinished.append(HeldCall(self, chains))

    def pick(self, which: int, among: int) -> HeldCall:
        return self.unfinished[which % min(among, len(self.unfinished))]

    def finish(self, held_call: HeldCall, kind: type) -> None:
        held_call.expect(kind)
        self.unfinished.remove(held_call)
        self.done.append((held_call, kind))

    @rule(chains=st.booleans())
    def make(self, chains: bool) -> None:
        self.add(chains)

    @precondition(lambda self: self.unfinished)
    @rule(which=WHICH)
    def answer(self, which: int) -> None:
        held_call = self.pick(which, self.workers)
        held_call.answer()
        self.finish(held_call, str)

    @precondition(lambda self: self.unfinished)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        held_call = self.pick(which, len(self.unfinished))
        assert held_call.call.cancel()
        self.finish(held_call, Cancelled)

    @precondition(lambda self: self.unfinished)
    @rule(which=WHICH)
    def expire(self, which: int) -> None:
        held_call = self.pick(which, self.workers)
        held_call.expire()
        assert not held_call.call.cancel()
        self.finish(held_call, Timeout)

    @precondition(lambda self: self.unfinished)
    @rule(which=WHICH)
    def cancel_while_answer_arrives(self, which: int) -> None:
        held_call = self.pick(which, self.workers)
        held_call.answer()
        self.finish(held_call, Cancelled if held_call.call.cancel() else str)

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
        before = tuple(self.unfinished)
        self.client.close(timeout, cancel=timeout is None)
        self.closed = True
        for held_call in before:
            self.finish(held_call, Cancelled)

    @rule()
    def fork(self) -> None:
        child = os.fork()
        if not child:
            signal.alarm(PATIENCE)
            try:
                self.check_in_child()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0

    def check_in_child(self) -> None:
        for held_call in self.unfinished:
            held_call.call.join(PATIENCE)
            assert not held_call.call.is_alive()
            assert not held_call.call.cancel()
            assert isinstance(held_call.call.result(), Cancelled)
            assert held_call.got == []
        for held_call, kind in self.done:
            held_call.expect(kind)
        self.call_without_callback()
        self.client.close()

    @invariant()
    def one_call_runs_per_worker_and_others_wait(self) -> None:
        while self.closed and self.unfinished:
            self.finish(self.unfinished[0], Closed)
        for held_call in self.unfinished[: self.workers]:
            assert held_call.began.wait(PATIENCE)
        for held_call in self.unfinished[self.workers :]:
            assert not held_call.began.is_set()
        for held_call in self.unfinished:
            assert held_call.call.is_alive()
        if self.closing and not self.unfinished:
            self.closing.join(PATIENCE)
            assert not self.closing.is_alive()
            self.closed = True

    def teardown(self) -> None:
        if not self.threads:  # hypothesis ended this before the first step
            return
        while self.unfinished:
            self.answer(0)
        self.client.close()
        if self.closing:
            self.closing.join(PATIENCE)
        assert set(threading.enumerate()) <= self.threads
        for held_call, kind in self.done:
            held_call.expect(kind)


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, derandomize=True
)
