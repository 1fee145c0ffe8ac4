"""A bridge for tests: with accounts at hand, failures on demand, and a clock that can be advanced.

`TestBridge` is a bridge on a free port, in a temporary folder::

    >>> from pymdc.testing import TestBridge
    >>> with TestBridge() as bridge:
    ...     bucket = bridge.account().bucket()
    ...     bridge.fail(503)
    ...     bucket.files.list()
    {'error': 'Failed by bridge.fail(503)'}

`BridgeTestCase` is a `unittest.TestCase` that has one; `pymdc_endpoint` is for scripts that name no
bridge. With pytest, use the fixtures of the plugin that comes with pymdc instead.

The extra ``bridge`` has to be installed. Nothing else in `pymdc` imports this package.
"""

from __future__ import annotations

from pymdc.testing.accounts import Account
from pymdc.testing.bridge import TestBridge
from pymdc.testing.case import BridgeTestCase
from pymdc.testing.endpoint import pymdc_endpoint
from pymdc.testing.requests import RecordedRequest

__all__ = ["Account", "BridgeTestCase", "RecordedRequest", "TestBridge", "pymdc_endpoint"]
