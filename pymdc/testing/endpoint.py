"""The environment variable that names a bridge, for scripts that name none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pymdc import _default
from pymdc.testing.bridge import TestBridge

_VARIABLE = "PYMDC_ENDPOINT"


@contextmanager
def pymdc_endpoint(bridge: TestBridge | None = None) -> Iterator[TestBridge]:
    """Name *bridge*, or a new one, in PYMDC_ENDPOINT, with a new default client.

    At the end, waits for the calls of the default client, and sets both back.
    """
    with ExitStack() as stack:
        if bridge is None:
            bridge = stack.enter_context(TestBridge())
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = bridge.endpoint
        try:
            with _default.replaced():
                yield bridge
        finally:
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before
