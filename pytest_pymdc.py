"""The pytest plugin of pymdc: a bridge for tests, with accounts and buckets.

It imports nothing of pymdc until a fixture is used, so it costs other tests nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pymdc.api import Bucket
    from pymdc.testing import Account, TestBridge

_SHOWN_REQUESTS = 20  # of a failed test, the last ones
_bridge_key = pytest.StashKey["TestBridge"]()  # of a test
_session_key = pytest.StashKey["TestBridge"]()  # of the configuration
_failed_key = pytest.StashKey[bool]()  # of a test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("pymdc").addoption(
        "--bridge-keep",
        action="store_true",
        help="give each test a bridge of its own, and keep the folder of the bridge if it fails",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        "bridge(nonce_rule=..., shard_size=..., quota=..., ...): give the test a bridge of its own"
        " with these settings, which are those of pymdc.testing.TestBridge",
    )


@pytest.fixture(scope="session")
def session_bridge(_pymdc_session_bridge: TestBridge) -> TestBridge:
    """The bridge that all tests share, for fixtures of a class, a module or the session."""
    return _pymdc_session_bridge


@pytest.fixture
def bridge(_pymdc_bridge: TestBridge) -> TestBridge:
    """The bridge of the test, a `pymdc.testing.TestBridge`; what a test asks of it ends with it."""
    return _pymdc_bridge


@pytest.fixture
def account(_pymdc_account: Account) -> Account:
    """A user of its own for the test: ``account.user``, ``account.key_pair``."""
    return _pymdc_account


@pytest.fixture
def bucket_factory(_pymdc_account: Account) -> Callable[..., Bucket]:
    """Makes buckets of the account, as `pymdc.testing.Account.bucket` does."""
    return _pymdc_account.bucket


@pytest.fixture
def bucket(_pymdc_account: Account) -> Bucket:
    """An empty bucket of the account, a `pymdc.api.Bucket`."""
    return _pymdc_account.bucket()


@pytest.fixture
def pymdc_endpoint(_pymdc_bridge: TestBridge) -> Iterator[str]:
    """The address of the bridge, which is in PYMDC_ENDPOINT too, with a new default client."""
    from pymdc.testing import pymdc_endpoint as named

    with named(_pymdc_bridge):
        yield _pymdc_bridge.endpoint


# The fixtures above need only these, so that a project may have a ``bridge`` or an ``account``
# that is something else.


@pytest.fixture(scope="session")
def _pymdc_session_bridge(request: pytest.FixtureRequest) -> Iterator[TestBridge]:
    with _serving(request, "session", {}) as bridge:
        request.config.stash[_session_key] = bridge
        yield bridge
        del request.config.stash[_session_key]


@pytest.fixture
def _pymdc_bridge(request: pytest.FixtureRequest) -> Iterator[TestBridge]:
    settings = _settings(request.node)
    if settings or request.config.getoption("bridge_keep"):
        with _serving(request, request.node.name, settings) as own:
            request.node.stash[_bridge_key] = own
            yield own
    else:
        shared: TestBridge = request.getfixturevalue("_pymdc_session_bridge")
        request.node.stash[_bridge_key] = shared
        yield shared


@pytest.fixture
def _pymdc_account(_pymdc_bridge: TestBridge) -> Account:
    return _pymdc_bridge.account()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Reset the bridge of the session after each test, also if fixtures of a class use it."""
    try:
        return (yield)
    finally:
        if shared := item.config.stash.get(_session_key, None):
            shared.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failed test what arrived at its bridge, and where its folder is."""
    report = yield
    bridge = _bridge_of(item)
    if report.failed and (shown := bridge or _bridge_of_case(item)):
        item.stash[_failed_key] = True
        report.sections.append(("Requests at the bridge", _described(shown.requests)))
    if report.failed and bridge and item.config.getoption("bridge_keep") and bridge.folder.exists():
        report.sections.append(("Folder of the bridge", str(bridge.folder)))
    return report


def _bridge_of(item: pytest.Item) -> TestBridge | None:
    """Return the bridge that the fixtures of a test have used, if they have used one."""
    if own := item.stash.get(_bridge_key, None):
        return own
    shared = "_pymdc_session_bridge" in getattr(item, "fixturenames", ())
    return item.config.stash.get(_session_key, None) if shared else None


def _bridge_of_case(item: pytest.Item) -> TestBridge | None:
    """Return the bridge of a `BridgeTestCase`, which need not have been imported."""
    testing, case = sys.modules.get("pymdc.testing"), getattr(item, "cls", None)
    if testing is None or case is None or not issubclass(case, testing.BridgeTestCase):
        return None
    bridge: TestBridge | None = case._bridge
    return bridge


def _described(requests: Sequence[object]) -> str:
    lines = [f"... {len(requests) - _SHOWN_REQUESTS} before"] * (len(requests) > _SHOWN_REQUESTS)
    return "\n".join([*lines, *map(str, requests[-_SHOWN_REQUESTS:])]) or "none"


def _settings(node: pytest.Item) -> dict[str, Any]:
    """Return the settings in the markers of a test; the nearest one counts."""
    settings: dict[str, Any] = {}
    for marker in reversed([*node.iter_markers("bridge")]):
        if marker.args:
            pytest.fail("the marker bridge takes names, as in bridge(shard_size=1000)", False)
        settings |= marker.kwargs
    return settings


@contextmanager
def _serving(
    request: pytest.FixtureRequest, name: str, settings: dict[str, Any]
) -> Iterator[TestBridge]:
    fault, data = "", None
    try:
        from pymdc.testing import TestBridge

        TestBridge(**settings)
    except ImportError as error:  # the extra is missing; the text says how to install it
        fault = f"the fixtures of pymdc need its bridge: {error}"
    except (TypeError, ValueError) as error:
        fault = f"the marker bridge is wrong: {error}"
    if fault:
        pytest.fail(fault, pytrace=False)
    if request.config.getoption("bridge_keep"):
        data = Path(
            tempfile.mkdtemp(prefix=f"pymdc-bridge-{re.sub(r'[^A-Za-z0-9_]+', '-', name)}-")
        )
    with TestBridge(data, **settings) as bridge:
        yield bridge
    failed = request.node.stash.get(_failed_key, False) or getattr(request.node, "testsfailed", 0)
    if data is not None and not failed:
        shutil.rmtree(data)
