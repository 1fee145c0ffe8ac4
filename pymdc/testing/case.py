"""A `unittest.TestCase` with a bridge."""

from __future__ import annotations

import unittest
from functools import cached_property
from typing import Any, ClassVar

from pymdc.api import Bucket
from pymdc.testing.accounts import Account
from pymdc.testing.bridge import TestBridge


class BridgeTestCase(unittest.TestCase):
    """A test case with a ``bridge``, and with an ``account`` and a ``bucket`` for each test.

    The bridge is started when it is first used, and closed after the last test of the class.
    *bridge_settings* are the settings of `TestBridge`, which a class may set.
    """

    bridge_settings: ClassVar[dict[str, Any]] = {}
    _bridge: ClassVar[TestBridge | None] = None

    @property
    def bridge(self) -> TestBridge:
        """The bridge of the class; before each test it is reset."""
        kind = type(self)
        if "_bridge" not in vars(kind):
            bridge = TestBridge(**self.bridge_settings).__enter__()
            kind._bridge = bridge
            kind.addClassCleanup(_close, kind)
        assert kind._bridge is not None
        return kind._bridge

    @cached_property
    def account(self) -> Account:
        """The account of this test."""
        return self.bridge.account()

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket of this test, which is empty at first."""
        return self.account.bucket()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Reset the bridge, and run the test; no ``setUp`` is needed."""
        if self._bridge is not None:
            self._bridge.reset()
        return super().run(result)


def _close(kind: type[BridgeTestCase]) -> None:
    assert kind._bridge is not None
    kind._bridge.close()
    del kind._bridge
