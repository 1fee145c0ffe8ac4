"""The default client: which bridge it calls, and what it returns if no endpoint is set."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import threading
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from modes import PATIENCE, Ask
from processes import python
from servers import RawServer, answering, wait, written

import pymdc
from pymdc import _default, unirest
from pymdc.api import REST, Bucket, Buckets, Files, Keys, Users
from pymdc.bridge import Bridge
from pymdc.exceptions import NoEndpoint, Timeout
from pymdc.testing import Account

PAIR = pymdc.ECDSA(private_key=b"\x11" * 32)


@pytest.fixture(autouse=True)
def _restore_default_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the default client after each test."""
    yield
    monkeypatch.undo()
    _default._timeout = None
    assert not _default.default().outstanding


@pytest.fixture
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYMDC_ENDPOINT")


def every_call() -> list[tuple[Callable[..., Any], list[Any]]]:
    """Return one call of each method, with its arguments."""
    files = Files("b", PAIR)
    return [
        (Users("a", "b").register, []),
        (Users("a", "b").activate, ["token"]),
        (Keys(Users("a", "b")).list, []),
        (Keys(Users("a", "b")).create, [PAIR]),
        (Keys(Users("a", "b")).delete, [PAIR]),
        (Buckets(PAIR).create, ["n", 1, 1, []]),
        (Buckets(PAIR).list, []),
        (Bucket("b", PAIR).list, []),
        (Bucket("b", PAIR).patch, [{}]),
        (Bucket("b", PAIR).delete, []),
        (files.list, []),
        (files.token, ["PUSH"]),
        (files.upload, [io.BytesIO(b"x")]),
        (files.upload, ["missing", "token"]),
        (files.download, ["h"]),
        (files.delete, ["h"]),
        (REST, ["GET", "/keys"]),
        (REST, ["PUT", "/x", {"f": io.BytesIO(b"x")}]),
    ]


@pytest.mark.usefixtures("no_endpoint")
@pytest.mark.parametrize("number", range(len(every_call())))
def test_call_without_endpoint_is_no_endpoint_with_advice(ask: Ask, number: int) -> None:
    call, arguments = every_call()[number]
    value = ask(call, *arguments)
    assert type(value) is NoEndpoint
    assert "the Metadisk service of 2016 is gone" in str(value)
    assert "PYMDC_ENDPOINT" in str(value)
    assert "pymdc.Client(endpoint)" in str(value)
    assert isinstance(value, urllib.error.URLError)
    assert isinstance(value, ValueError)
    assert type(pickle.loads(pickle.dumps(value))) is NoEndpoint


@pytest.mark.usefixtures("no_endpoint")
def test_client_without_endpoint_is_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no bridge is named") as caught:
        pymdc.Client()
    assert type(caught.value) is NoEndpoint
    monkeypatch.setenv("PYMDC_ENDPOINT", "")
    with pytest.raises(NoEndpoint):
        pymdc.Client()


def test_client_takes_endpoint_from_variable(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    with pymdc.Client() as client:
        assert client.endpoint == bridge.endpoint


def test_package_does_not_mention_old_service() -> None:
    script = (
        "import pathlib, pymdc\n"
        "for path in pathlib.Path(pymdc.__file__).parent.rglob('*.py'):\n"
        "    assert 'metadisk.org' not in path.read_text(encoding='utf-8'), path\n"
    )
    assert python("-c", script).stderr == ""


@pytest.mark.usefixtures("no_endpoint")
def test_default_client_follows_variable(
    ask: Ask, bridge: Bridge, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    buckets = Buckets(account.key_pair)
    assert type(ask(buckets.list)) is NoEndpoint
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    assert ask(buckets.list) == []
    same = _default.default()
    assert ask(buckets.list) == []
    assert _default.default() is same
    with Bridge() as other:
        monkeypatch.setenv("PYMDC_ENDPOINT", other.endpoint)
        assert ask(buckets.list) == {"error": "Public key not registered"}
    monkeypatch.delenv("PYMDC_ENDPOINT")
    assert type(ask(buckets.list)) is NoEndpoint
    monkeypatch.setenv("PYMDC_WORKERS", "many")
    with pytest.raises(ValueError, match="the variable PYMDC_WORKERS is 'many'"):
        ask(buckets.list)


def test_default_client_stays_while_callback_call_is_outstanding(
    bridge: Bridge, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    buckets, released = Buckets(account.key_pair), threading.Event()
    got: list[Any] = []

    def callback(answer: Any) -> None:
        released.wait(PATIENCE)
        got.append(buckets.list())

    call = buckets.list(callback)
    monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
    assert buckets.list() == []
    released.set()
    call.join(PATIENCE)
    assert got == [[]]
    assert isinstance(buckets.list(), OSError)


def test_default_client_stays_while_blocking_call_is_outstanding(
    bridge: Bridge, account: Account, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    my_bucket, seen = Bucket(bucket.bucket_id, account.key_pair), []

    def progress(done: int, total: int | None) -> None:
        monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
        seen.append(my_bucket.list())

    entry = my_bucket.files.upload(bytearray(2_000_000), progress=progress)
    assert entry["size"] == 2_000_000
    assert all(answer["name"] == "photos" for answer in seen)


def test_started_call_keeps_its_client(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(io.BytesIO):
        def tell(self) -> int:
            monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
            assert isinstance(Buckets(PAIR).list(), OSError)
            return super().tell()

    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    files = Files(bucket.bucket_id, account.key_pair)
    assert ask(files.upload, Changing(b"x"))["size"] == 1


def test_next_call_after_join_follows_variable(
    bridge: Bridge, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    released = threading.Event()
    call = Buckets(account.key_pair).list(lambda answer: None)
    call.add_done_callback(lambda call: released.wait(PATIENCE))
    call.join(PATIENCE)
    monkeypatch.setenv("PYMDC_ENDPOINT", "http://127.0.0.1:1")
    assert isinstance(Buckets(account.key_pair).list(), OSError)
    released.set()


def test_unirest_timeout_sets_timeouts_of_default_client(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = answering(written("200 OK", b"[]"))
    with RawServer(answers) as server:
        monkeypatch.setenv("PYMDC_ENDPOINT", server.endpoint)
        assert ask(Buckets(PAIR).list) == []
        unirest.timeout(500)
        client = _default.default()
        assert client._transport.timeout == (500, 500)
        assert (client._total, client._stall) == (500, 500)
        assert ask(Buckets(PAIR).list) == []
    with RawServer(wait) as server:
        monkeypatch.setenv("PYMDC_ENDPOINT", server.endpoint)
        unirest.timeout(0.2)
        value = ask(Users("a", "b").register)
    assert type(value) is Timeout
    assert "no answer within 0.2 s" in str(value)
    wrong: list[Any] = [0, -1, "x", None, (1, 2), [5]]
    for seconds in wrong:
        with pytest.raises(ValueError, match="timeout is"):
            unirest.timeout(seconds)
    assert _default.default()._transport.timeout == (0.2, 0.2)
    monkeypatch.setenv("PYMDC_WORKERS", "3")
    assert _default.default()._size == 3
    assert _default.default()._transport.timeout == (0.2, 0.2), "it is kept for the next client"


def resources() -> list[Any]:
    return [
        Users("a", "b"),
        Keys(Users("a", "b")),
        Buckets(PAIR),
        Bucket("b", PAIR),
        Files("b", None),
    ]


def test_resources_of_default_client_are_pickled_and_copied(
    bridge: Bridge, account: Account, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for resource in resources():
        for duplicate in (
            pickle.loads(pickle.dumps(resource)),
            copy.deepcopy(resource),
            copy.copy(resource),
        ):
            assert repr(duplicate) == repr(resource)
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    my_bucket = Bucket(bucket.bucket_id, account.key_pair)
    assert pickle.loads(pickle.dumps(my_bucket)).list() == my_bucket.list()


def test_resources_of_given_client_refuse_pickling(client: pymdc.Client) -> None:
    for resource in resources():
        resource._given_client = client
        for copying in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled, since its connections"):
                copying(resource)
        assert copy.copy(resource)._given_client is client


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_bucket_works_in_another_process(
    bridge: Bridge, account: Account, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    my_bucket = Bucket(bucket.bucket_id, account.key_pair)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(my_bucket.list) == my_bucket.list()
        keys = Keys(Users(account.user.username, "pass"))
        assert pool.apply(keys.list) == keys.list()
        pool.close()
        pool.join()
