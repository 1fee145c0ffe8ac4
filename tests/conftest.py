from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from accounts import Account
from modes import MODES, Ask

import pymdc
from pymdc.bridge import Bridge

# Whatever forgets to name its bridge finds a closed port, not somebody's server.
os.environ["PYMDC_ENDPOINT"] = "http://127.0.0.1:1"

# A shell lets what it runs in the background ignore Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


@pytest.fixture(params=MODES)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method in the one mode and in the other, and give its value."""
    return MODES[request.param]


@pytest.fixture(scope="session")
def bridge() -> Iterator[Bridge]:
    with Bridge() as running:
        yield running


@pytest.fixture
def client(bridge: Bridge) -> Iterator[pymdc.Client]:
    with pymdc.Client(bridge.endpoint) as open_client:
        yield open_client


@pytest.fixture
def new_user(client: pymdc.Client) -> pymdc.api.Users:
    """Give a user whom no bridge knows yet."""
    return pymdc.api.Users(f"user{next(_numbers)}@example.com", "pass", client=client)


@pytest.fixture
def account(bridge: Bridge, client: pymdc.Client, new_user: pymdc.api.Users) -> Account:
    new_user.register()
    new_user.activate(bridge.activation_key(new_user.username))
    keys = pymdc.api.Keys(new_user)
    keys.create()
    return Account(new_user, keys.key_pairs[0])


@pytest.fixture
def bucket(account: Account, client: pymdc.Client) -> pymdc.api.Bucket:
    answer = pymdc.api.Buckets(account.key_pair, client=client).create(
        "photos", 10, 30, [account.key_pair]
    )
    return pymdc.api.Bucket(answer["id"], account.key_pair, client=client)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep back the collector: down in a nested answer no frame is left for what it finalizes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
