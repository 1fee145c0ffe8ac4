from __future__ import annotations

import pytest
from modes import ALL_MODES, Ask


@pytest.fixture(params=ALL_MODES)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method in each mode: blocking, with a callback, and with a client that raises."""
    return ALL_MODES[request.param]
