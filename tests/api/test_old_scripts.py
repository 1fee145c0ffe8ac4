"""Scripts of 2016: attributes are assigned, and users and key pairs take each other's place."""

from __future__ import annotations

import io
import itertools
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from accounts import Account, uploaded
from modes import PATIENCE, Ask
from servers import RawServer, wait

import pymdc
from pymdc._crypto.file_hash import file_hash
from pymdc.api import REST, Bucket, Buckets, Files, Keys, Users
from pymdc.bridge import Bridge

_numbers = itertools.count(1)

NOT_FOUND = {"error": "Bucket not found"}
NO_IDENTITY = {"error": "No authentication strategy detected"}


class UserLike:
    """An object with the attributes of a user that `REST` needs; its class is not from pymdc."""

    def __init__(self, user: Users) -> None:
        self.username = user.username
        self._hash = user.password_hash()

    def password_hash(self) -> str:
        return self._hash


class AttributeProxy:
    """Forwards attribute access to *wrapped*."""

    def __init__(self, wrapped: object) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class CheckedKeyPair(pymdc.ECDSA):
    """A key pair of a subclass."""

    __slots__ = ("pin",)

    def __init__(self, pin: int) -> None:
        super().__init__()
        self.pin = pin

    def sign(self, msg: str | bytes, private_key: Any = None) -> str:
        assert self.pin == 5
        return super().sign(msg, private_key)


@pytest.fixture
def other_bucket_id(bucket: Bucket, account: Account, client: pymdc.Client) -> str:
    """Return the id of another bucket of the same user."""
    made = Buckets(account.key_pair, client=client).create("other", 1, 1, [])
    return str(made["id"])


def test_assigned_bucket_id_is_used_from_next_call(
    ask: Ask, bucket: Bucket, other_bucket_id: str
) -> None:
    assert ask(bucket.list)["name"] == "photos"
    first, bucket.bucket_id = bucket.bucket_id, other_bucket_id
    assert ask(bucket.list)["name"] == "other"
    assert ask(bucket.patch, {"name": "changed"})["id"] == other_bucket_id
    assert bucket.files.bucket_id == first, "its files keep their bucket id"
    assert ask(bucket.files.token, "PUSH")["bucket"] == first
    bucket.files.bucket_id = other_bucket_id.encode()  # type: ignore[assignment]  # as Python 2 may have
    assert ask(bucket.files.token, "PUSH")["bucket"] == other_bucket_id
    entry = ask(bucket.files.upload, io.BytesIO(b"x"))
    assert entry["bucket"] == other_bucket_id
    assert uploaded(ask(bucket.files.list)) == [entry]
    assert len(ask(bucket.files.download, entry["hash"])) == 1
    assert ask(bucket.files.download, entry["hash"], to=io.BytesIO())["bucket"] == other_bucket_id
    assert ask(bucket.files.delete, entry["hash"]) == ""
    assert ask(bucket.delete) == ""
    assert ask(bucket.list) == NOT_FOUND


def test_assigned_key_pair_signs_from_next_call(
    ask: Ask, bucket: Bucket, account: Account, client: pymdc.Client
) -> None:
    stranger = {"error": "Public key not registered"}
    buckets = Buckets(pymdc.ECDSA(), client=client)
    resources: list[Any] = [buckets, bucket, bucket.files]
    for resource in resources:
        resource.key_pair = pymdc.ECDSA()
        assert ask(resource.list) == stranger
    assert ask(buckets.create, "n", 1, 1, []) == stranger
    for resource in resources:
        resource.key_pair = account.key_pair
        assert "error" not in ask(resource.list)


def test_assigned_private_key_does_not_sign_earlier_calls(
    bridge: Bridge, bucket: Bucket, account: Account
) -> None:
    released, stranger = threading.Event(), {"error": "Public key not registered"}
    with pymdc.Client(bridge.endpoint, workers=1) as client:
        waiting = Bucket(bucket.bucket_id, account.key_pair, client=client)
        busy = waiting.list(lambda answer: released.wait(PATIENCE))
        before = waiting.list(lambda answer: None)
        account.key_pair.private_key = pymdc.ECDSA().private_key
        after = waiting.list(lambda answer: None)
        released.set()
        assert "error" not in busy.result(PATIENCE)
        assert "error" not in before.result(PATIENCE)
        assert after.result(PATIENCE) == stranger
        assert waiting.list() == stranger


def test_assigned_user_or_password_is_used_from_next_call(
    ask: Ask, account: Account, client: pymdc.Client
) -> None:
    keys = Keys(Users("nobody@example.com", "pass", client=client))
    wrong = {"error": "Invalid email or password"}
    assert ask(keys.list) == wrong
    keys.user = account.user
    assert len(ask(keys.list)) == 1
    user = Users(account.user.username, "another", client=client)
    keys.user = user
    assert ask(keys.list) == wrong
    user.password = b"pass"  # type: ignore[assignment]
    assert len(ask(keys.list)) == 1
    user.username = b"nobody@example.com"  # type: ignore[assignment]
    assert ask(keys.list) == wrong
    user.username = f"other{next(_numbers)}@example.com"
    assert ask(user.register)["email"] == user.username


@pytest.mark.parametrize(
    ("name", "wrong", "text"),
    [
        ("bucket_id", 5, "the bucket's id is int"),
        ("key_pair", "key", "the user or key pair is str; expected Users, ECDSA or None"),
    ],
)
def test_wrong_attribute_is_type_error_at_call(
    ask: Ask, bucket: Bucket, name: str, wrong: object, text: str
) -> None:
    for resource in (bucket, bucket.files):
        setattr(resource, name, wrong)
        with pytest.raises(TypeError, match=text):
            ask(resource.list)


def test_user_is_accepted_as_key_pair(
    ask: Ask, account: Account, bucket: Bucket, client: pymdc.Client
) -> None:
    made = ask(Buckets(account.user, client=client).create, "by password", 1, 1, [])
    assert made["pubkeys"] == [], "no key signed"
    one = Bucket(made["id"], account.user, client=client)
    assert ask(one.list) == made
    entry = ask(one.files.upload, io.BytesIO(b"x"))
    assert uploaded(ask(one.files.list)) == [entry]
    assert ask(one.files.download, entry["hash"], to=io.BytesIO())["size"] == 1


def test_key_pair_is_accepted_as_user(ask: Ask, account: Account, client: pymdc.Client) -> None:
    keys = Keys(account.key_pair, client=client)
    assert len(ask(keys.list)) == 1
    added = pymdc.ECDSA()
    assert ask(keys.create, added)["key"] == added.get_public_key()
    assert ask(keys.delete, added) == ""


def test_token_authorizes_without_key_pair(ask: Ask, bucket: Bucket, client: pymdc.Client) -> None:
    push = bucket.files.token("PUSH")["token"]
    unsigned_files = Files(bucket.bucket_id, None, client=client)
    entry = ask(unsigned_files.upload, io.BytesIO(b"x"), push)
    assert entry["bucket"] == bucket.bucket_id
    pull = bucket.files.token("PULL")["token"]
    assert ask(unsigned_files.download, entry["hash"], pull, to=io.BytesIO())["size"] == 1
    for call in (
        unsigned_files.list,
        Buckets(None, client=client).list,
        Keys(None, client=client).list,
    ):
        assert ask(call) == NO_IDENTITY
    assert ask(unsigned_files.upload, io.BytesIO(b"x")) == NO_IDENTITY
    assert ask(unsigned_files.download, entry["hash"]) == NO_IDENTITY


@pytest.mark.parametrize("auth", [(), None, "", {}, []])
def test_empty_auth_is_no_identity_for_rest(ask: Ask, client: pymdc.Client, auth: Any) -> None:
    assert ask(REST, "GET", "/keys", {}, auth, client=client) == NO_IDENTITY


def test_rest_accepts_any_object_with_username_and_password_hash(
    ask: Ask, account: Account, client: pymdc.Client
) -> None:
    for user in (account.user, UserLike(account.user), AttributeProxy(account.user)):
        assert len(ask(REST, "GET", "/keys", {}, user, client=client)) == 1
    assert len(ask(Keys(UserLike(account.user), client=client).list)) == 1


def test_subclass_of_key_pair_signs(ask: Ask, account: Account, client: pymdc.Client) -> None:
    pair = CheckedKeyPair(5)
    assert "error" not in ask(Keys(account.user).create, pair)
    assert ask(Buckets(pair, client=client).list) == []


def test_key_pairs_list_changes_at_call(ask: Ask, account: Account) -> None:
    keys, pair = Keys(account.user), pymdc.ECDSA()
    before: list[list[pymdc.ECDSA]] = []

    def note(answer: object) -> None:
        before.append([*keys.key_pairs])

    keys.create(pair, note).join()
    assert before == [[pair]]
    assert ask(keys.create, pair) == {"error": "Public key is already registered"}
    assert ask(keys.create, account.key_pair) == {"error": "Public key is already registered"}
    assert keys.key_pairs == [pair, account.key_pair], "each once, whatever the answer"
    ask(keys.create)
    keys.delete(pair, note).join()
    assert before[1:] == [keys.key_pairs]
    while keys.key_pairs:
        ask(keys.delete, keys.key_pairs[0])
    assert ask(keys.list) == []
    keys.key_pairs = [pair]
    assert ask(keys.delete, pymdc.ECDSA()) == {"error": "Public key was not found"}
    assert keys.key_pairs == [pair]


def test_key_pairs_list_changes_without_bridge(ask: Ask) -> None:
    with pymdc.Client("http://127.0.0.1:1") as nowhere:
        keys = Keys(Users("a", "b", client=nowhere))
        assert isinstance(ask(keys.create), OSError)
        assert len(keys.key_pairs) == 1
        assert isinstance(ask(keys.delete, keys.key_pairs[0]), OSError)
        assert keys.key_pairs == []


@pytest.mark.parametrize(
    ("given", "sent"), [(1.9, 1), ("7", 7), (b"8", 8), (True, 1), (" 3 ", 3), (2**40, 2**40)]
)
def test_gigabytes_are_converted_to_int(
    ask: Ask, account: Account, client: pymdc.Client, given: Any, sent: int
) -> None:
    made = ask(Buckets(account.key_pair, client=client).create, "n", given, given, [])
    assert (made["storage"], made["transfer"]) == (sent, sent)


def test_password_is_text_and_can_be_reused() -> None:
    assert Users("a", b"p\xc3\xa4ss").password == "päss"
    user = Users("a")
    assert isinstance(user.password, str)
    assert Users("a", user.password).password_hash() == user.password_hash()


@pytest.mark.parametrize(
    ("resource", "params"),
    [
        ("/keys?a=b", {}),
        ("keys?a=b&c=%2f%c3%bc d", {"e": "f g"}),
        ("/keys?__nonce=5&a=b", {}),
        ("/keys?", {}),
        ("/keys?a[]=1&b=?/", {}),
        ("/keys?käse=übel", {}),
    ],
)
def test_query_in_resource_is_signed(
    ask: Ask, account: Account, client: pymdc.Client, resource: str, params: Any
) -> None:
    assert len(ask(REST, "GET", resource, params, account.key_pair, client=client)) == 1
    made = ask(
        REST, "POST", resource.replace("keys", "buckets"), params, account.key_pair, client=client
    )
    assert made["name"] == "New Bucket", "a body is signed without the query"


def test_put_with_open_file_is_multipart_form(
    ask: Ask, bucket: Bucket, client: pymdc.Client, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"a photo")
    for number, fields in enumerate(({}, {"before": "ü", b"number": 5, '"': b"x"})):
        token = bucket.files.token("PUSH")["token"]
        headers = {"x-token": token, "x-filesize": "7", "content-type": "is set anew"}
        with path.open("rb") as file:
            params = {"data": file, **fields}
            resource = f"/buckets/{bucket.bucket_id}/files"
            entry = ask(REST, "PUT", resource, params, (), headers, client=client)
            assert file.tell() == 7
        assert entry["hash"] == file_hash(b"a photo"), number
        assert (entry["filename"], entry["mimetype"]) == ("photo.jpg", "image/jpeg")


def test_refused_put_restores_file_position(ask: Ask, bucket: Bucket, client: pymdc.Client) -> None:
    file = io.BytesIO(b"a photo")
    file.seek(2)
    headers = {"x-token": "0" * 64, "x-filesize": "5"}
    value = ask(REST, "PUT", "/buckets/x/files", {"f": file}, (), headers, client=client)
    assert value == {"error": "Invalid or expired token"}
    assert file.tell() == 2


def test_call_has_methods_and_attributes_of_thread(account: Account, client: pymdc.Client) -> None:
    released = threading.Event()
    threads = [
        Buckets(account.key_pair, client=client).list(lambda _: released.wait(PATIENCE))
        for _ in range(2)
    ]
    assert len({thread.ident for thread in threads}) == 2
    assert len({thread.getName() for thread in threads}) == 2
    for thread in threads:
        assert thread.isAlive()
        assert thread.is_alive()
        assert isinstance(thread.ident, int)
        assert thread.name == thread.getName()
        thread.setName("mine")
        assert thread.name == "mine"
        thread.name = "yours"
        assert thread.getName() == "yours"
        assert thread.daemon is thread.isDaemon() is False
        with pytest.raises(RuntimeError, match="cannot set daemon status of active thread"):
            thread.setDaemon(True)
        with pytest.raises(RuntimeError, match="cannot set daemon status"):
            thread.daemon = True
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.run()
        thread.join(0)
        assert thread.isAlive()
    released.set()
    for thread in threads:
        thread.join()
        assert not thread.isAlive()


def test_repr_of_call_shows_its_state(account: Account, client: pymdc.Client) -> None:
    in_callback, released = threading.Event(), threading.Event()

    def callback(answer: object) -> None:
        in_callback.set()
        released.wait(PATIENCE)

    call = Buckets(account.key_pair, client=client).list(callback)
    in_callback.wait(PATIENCE)
    assert repr(call) == f"<Call {call.name}, its callback runs>"
    released.set()
    call.join()
    assert repr(call) == f"<Call {call.name}, done>"

    def silence(connection: socket.socket) -> None:
        in_callback.set()
        wait(connection)

    with RawServer(silence) as server:
        with pymdc.Client(server.endpoint, workers=1) as silent:
            in_callback.clear()
            calls = [Users("a", "b", client=silent).activate("secret", print) for _ in range(2)]
            in_callback.wait(PATIENCE)
            assert re.fullmatch(
                rf"<Call {calls[0].name}, GET \S+/activations/\.\.\.>", repr(calls[0])
            )
            assert repr(calls[1]) == f"<Call {calls[1].name}, a call not yet sent>"
            silent.close(cancel=True)


def test_reprs_of_resources_show_no_secret() -> None:
    pair = pymdc.ECDSA(private_key=b"\x11" * 32)
    user = Users("a@b.com", "geheim")
    key = f"<ECDSA {pair.get_public_key()}>"
    assert [
        *map(repr, (user, Keys(user), Buckets(pair), Bucket("b1", pair), Files("b1", None)))
    ] == [
        "<Users 'a@b.com'>",
        "<Keys of <Users 'a@b.com'>>",
        f"<Buckets of {key}>",
        f"<Bucket 'b1' of {key}>",
        "<Files of bucket 'b1' of None>",
    ]
