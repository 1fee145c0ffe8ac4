from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from modes import MODES, Ask

import pymdc
from pymdc.bridge import settings
from pymdc.testing import Account, TestBridge

# A test that names no bridge finds a closed port, not a real server.
os.environ["PYMDC_ENDPOINT"] = "http://127.0.0.1:1"

# Each client over TLS would read the file with the authorities of this machine in 20 ms. A store
# needs one authority at least; the key of this one was deleted.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("support") / "authority.pem")

# A shell starts background processes with SIGINT ignored; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Most tests register a user; at full cost their passwords would take a third of the time.
settings.PASSWORD_COST["n"] = 2

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--distributed",
        action="store_true",
        help="run the tests that need PostgreSQL or SeaweedFS, or can run on them, and no others",
    )


def pytest_configure(config: pytest.Config) -> None:
    for text in (
        "storage: the test runs on each kind of database and store",
        "distributed: the test starts PostgreSQL or SeaweedFS itself, and needs --distributed",
    ):
        config.addinivalue_line("markers", text)


@pytest.fixture(params=MODES)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method without a callback, then with one, and return its value."""
    return MODES[request.param]


@pytest.fixture(scope="session")
def session_bridge() -> Iterator[TestBridge]:
    with TestBridge() as running:
        yield running


@pytest.fixture
def bridge(session_bridge: TestBridge) -> Iterator[TestBridge]:
    yield session_bridge
    session_bridge.reset()


@pytest.fixture
def client(bridge: TestBridge) -> Iterator[pymdc.Client]:
    with pymdc.Client(bridge.endpoint) as open_client:
        yield open_client


@pytest.fixture
def new_user(client: pymdc.Client) -> pymdc.api.Users:
    """Give a user that is not registered yet."""
    return pymdc.api.Users(f"user{next(_numbers)}@example.com", "pass", client=client)


@pytest.fixture
def account(bridge: TestBridge, client: pymdc.Client) -> Account:
    return bridge.account(client)


@pytest.fixture
def bucket(account: Account) -> pymdc.api.Bucket:
    return account.bucket("photos", key_pairs=[account.key_pair])


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Switch off the garbage collector: its finalizers need frames that deep recursion has used."""
    gc.disable()
    yield
    gc.enable()
