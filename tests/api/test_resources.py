"""Every method of the API, in both modes, against the real bridge."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from modes import PATIENCE, Ask
from servers import RawServer, read_request

import pymdc
from pymdc._crypto.file_hash import file_hash
from pymdc.api import Bucket, Buckets, Files, Keys, Users
from pymdc.bridge import Bridge
from pymdc.exceptions import IntegrityError
from pymdc.rest import REST
from pymdc.testing import Account

ENTRY = {"bucket", "mimetype", "filename", "size", "hash", "created"}
BUCKET = {"user", "created", "name", "pubkeys", "status", "storage", "transfer", "id"}

PAIR = pymdc.ECDSA()
BUCKETS: Any = Buckets(PAIR)
NONE: Any = None
KEYS: Any = Keys(Users("a"))
FILES: Any = Files("0" * 24, PAIR)
UNTYPED_BUCKET: Any = Bucket("0" * 24, PAIR)
UNTYPED_REST: Any = REST
PIPE = io.BytesIO(b"a file")


class RecordingServer(RawServer):
    """Records the body of the request that it answers."""

    def __init__(self, answer: bytes = b"{}") -> None:
        self.body = b""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        super().__init__(self._record)

    def _record(self, connection: socket.socket) -> None:
        self.body = read_request(connection)[1]
        connection.sendall(self.answer)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(random.Random(1).randbytes(100_000))
    return path


def test_user_is_registered_and_activated(ask: Ask, bridge: Bridge, new_user: Users) -> None:
    answer = ask(new_user.register)
    assert answer["email"] == answer["id"] == new_user.username
    assert answer["activated"] is False
    answer = ask(new_user.activate, bridge.activation_key(new_user.username))
    assert answer["activated"] is True


def test_refusal_is_answer_of_bridge(ask: Ask, new_user: Users) -> None:
    new_user.register()
    assert ask(new_user.register) == {"error": "Email is already registered"}
    assert ask(new_user.activate, "0" * 64) == {"error": "Invalid activation token"}
    assert ask(Keys(new_user).list) == {"error": "User account has not been activated"}


def test_missing_password_is_random_text() -> None:
    one, two = Users("a@b.com"), Users(b"a@b.com")
    assert isinstance(one.password, str)
    assert len(one.password) > 30
    assert one.password != two.password
    assert one.username == two.username


def test_password_is_sent_as_sha256_of_utf8() -> None:
    assert Users("a@b.com", "pass").password_hash() == (
        "d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"
    )
    expected = hashlib.sha256("pässword".encode()).hexdigest()
    assert Users("a@b.com", "pässword").password_hash() == expected
    assert Users("a@b.com", "pässword".encode()).password_hash() == expected


def test_keys_are_created_listed_and_deleted(ask: Ask, account: Account) -> None:
    keys, key_pair = Keys(account.user), pymdc.ECDSA()
    answer = ask(keys.create, key_pair)
    assert answer["key"] == answer["id"] == key_pair.get_public_key()
    assert ask(keys.create)["user"] == account.user.username
    assert keys.key_pairs[0] is key_pair
    assert len(keys.key_pairs) == 2
    assert keys.user is account.user
    listed = [entry["key"] for entry in ask(keys.list)]
    created = [account.key_pair, *keys.key_pairs]
    assert sorted(listed) == sorted(pair.get_public_key() for pair in created)
    assert ask(keys.delete, key_pair) == ""
    assert key_pair.get_public_key() not in [entry["key"] for entry in ask(keys.list)]
    assert ask(keys.delete, key_pair) == {"error": "Public key was not found"}


def test_uncompressed_key_is_accepted(ask: Ask, account: Account, client: pymdc.Client) -> None:
    pair = pymdc.ECDSA()
    pair.use_compression = 0
    assert len(ask(Keys(account.user).create, pair)["key"]) == 130
    assert ask(Buckets(pair, client=client).list) == []


def test_buckets_are_created_and_listed(ask: Ask, account: Account, client: pymdc.Client) -> None:
    buckets, other = Buckets(account.key_pair, client=client), pymdc.ECDSA()
    made = ask(buckets.create, "photos", 10, "30", [other])
    assert made.keys() == BUCKET
    assert (made["name"], made["storage"], made["transfer"]) == ("photos", 10, 30)
    assert made["pubkeys"] == [other.get_public_key(), account.key_pair.get_public_key()]
    assert ask(buckets.create, b"Gr\xc3\xbc\xc3\x9fe", 1, 1, [])["name"] == "Grüße"
    assert [entry["name"] for entry in ask(buckets.list)] == ["photos", "Grüße"]


def test_bucket_is_shown_changed_and_deleted(ask: Ask, bucket: Bucket) -> None:
    shown = ask(bucket.list)
    assert shown.keys() == BUCKET
    assert ask(bucket.patch, {"name": "renamed", "storage": 20}) == {
        **shown,
        "name": "renamed",
        "storage": 20,
    }
    assert ask(bucket.delete) == ""
    assert ask(bucket.list) == {"error": "Bucket not found"}


def test_bucket_id_may_be_bytes(
    ask: Ask, account: Account, bucket: Bucket, client: pymdc.Client
) -> None:
    bucket_id = bucket.list()["id"]
    same = Bucket(bucket_id.encode(), account.key_pair, client=client)
    assert ask(same.list)["id"] == bucket_id
    assert ask(same.files.list) == []
    files = Files(bucket_id.encode(), account.key_pair, client=client)
    assert ask(files.token, "PUSH")["bucket"] == bucket_id


def test_file_is_uploaded_and_downloaded(
    ask: Ask, bucket: Bucket, photo: Path, tmp_path: Path
) -> None:
    files = bucket.files
    entry = ask(files.upload, photo)
    assert entry.keys() == ENTRY
    assert entry["filename"] == "photo.jpg"
    assert entry["mimetype"] == "image/jpeg"
    assert entry["size"] == 100_000
    assert entry["hash"] == file_hash(photo.read_bytes())
    assert ask(files.list) == [entry]
    target = tmp_path / "back.jpg"
    assert ask(files.download, entry["hash"], to=target) == {
        "bucket": entry["bucket"],
        "hash": entry["hash"],
        "size": 100_000,
        "path": str(target),
    }
    assert target.read_bytes() == photo.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["back.jpg", "photo.jpg"]
    assert ask(files.delete, entry["hash"]) == ""
    assert ask(files.list) == []
    assert ask(files.delete, entry["hash"]) == {"error": "File not found"}


def test_file_is_renamed(ask: Ask, bucket: Bucket, photo: Path) -> None:
    entry = ask(bucket.files.upload, photo)
    renamed = ask(bucket.files.rename, entry["hash"].encode(), "folder/ü.jpg")
    assert renamed == {**entry, "filename": "ü.jpg"}
    assert ask(bucket.files.list) == [renamed]
    assert ask(bucket.files.rename, "0" * 40, "x") == {"error": "File not found"}
    with pytest.raises(TypeError, match="the name"):
        bucket.files.rename(entry["hash"], NONE)


def test_usage_counts_files_and_bytes(
    ask: Ask, account: Account, bucket: Bucket, photo: Path, client: pymdc.Client
) -> None:
    bucket.files.upload(photo)
    usage = ask(Buckets(account.key_pair, client=client).usage)
    [counted] = usage["buckets"]
    assert counted == {**{"id": bucket.bucket_id, "stored": 100_000, "files": 1, "transferred": 0}}
    assert (usage["stored"], usage["limit"]) == (100_000, None)
    assert usage["disk_free"] > 0


def test_tokens_work_as_in_2016(ask: Ask, bucket: Bucket, photo: Path) -> None:
    files = bucket.files
    push = ask(files.token, "PUSH")
    assert push.keys() == {"bucket", "operation", "expires", "token", "id"}
    entry = ask(files.upload, str(photo), push["token"])
    pull = ask(files.token, b"PULL")
    (pointer,) = ask(files.download, entry["hash"].encode(), pull["token"].encode())
    assert pointer.keys() == {"hash", "token", "size", "operation", "channel"}
    assert pointer["hash"] == entry["hash"]
    spent = ask(files.upload, str(photo), push["token"])
    assert spent == {"error": "Invalid or expired token"}
    assert ask(files.token, "DESTROY") == {"error": "Token validation failed"}


def test_download_without_target_returns_pointers(ask: Ask, bucket: Bucket, photo: Path) -> None:
    (pointer,) = ask(bucket.files.download, ask(bucket.files.upload, photo)["hash"])
    assert pointer["operation"] == "PULL"


@pytest.mark.parametrize("size", [0, 1, 8_388_607, 8_388_608, 8_388_609, 20_000_000])
def test_files_around_shard_size_are_transferred_whole(
    ask: Ask, bucket: Bucket, tmp_path: Path, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    entry = ask(bucket.files.upload, io.BytesIO(data))
    assert (entry["size"], entry["hash"]) == (size, file_hash(data))
    assert len(ask(bucket.files.download, entry["hash"])) == -(-size // 8_388_608)
    ask(bucket.files.download, entry["hash"], to=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_list_of_files_is_read_in_parts(ask: Ask, bucket: Bucket) -> None:
    names = ["a", "b & c", "b & c", "d"]
    for number, name in enumerate(names):
        bucket.files.upload(bytearray([number]), name=name)
    whole = bucket.files.list()
    assert [entry["filename"] for entry in whole] == names
    first = ask(bucket.files.list, limit=3)
    assert first == whole[:3]
    assert ask(bucket.files.list, limit=3, after=first[-1]["hash"]) == whole[3:]
    assert ask(bucket.files.list, name="b & c") == whole[1:3]
    assert ask(bucket.files.list, after="0" * 40) == {"error": "File not found"}


def test_open_file_is_uploaded_from_its_position_and_stays_open(
    ask: Ask, bucket: Bucket, photo: Path
) -> None:
    with open(photo, "rb") as file:
        file.seek(60_000)
        entry = ask(bucket.files.upload, file)
        assert not file.closed
    assert entry["size"] == 40_000
    assert entry["filename"] == "photo.jpg"
    assert entry["hash"] == file_hash(photo.read_bytes()[60_000:])


def test_file_without_name_is_named_by_its_hash(ask: Ask, bucket: Bucket) -> None:
    entry = ask(bucket.files.upload, io.BytesIO(b"nameless"))
    assert entry["filename"] == entry["hash"]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Grüße ☃.txt", "Grüße ☃.txt"),
        ('a"b;c.txt', 'a"b;c.txt'),
        ("100%.txt", "100%.txt"),
        ("line\nfeed\r.txt", "line\nfeed\r.txt"),
        ("back\\slash.txt", "slash.txt"),
    ],
)
def test_file_keeps_its_name(
    ask: Ask, bucket: Bucket, tmp_path: Path, name: str, stored: str
) -> None:
    path = tmp_path / name
    path.write_bytes(name.encode())
    assert ask(bucket.files.upload, path)["filename"] == stored


def test_upload_sends_base_name_only(ask: Ask, photo: Path) -> None:
    with open(os.fsencode(photo), "rb") as file:
        for source in (photo, str(photo), file):
            server = RecordingServer()
            with server, pymdc.Client(server.endpoint) as client:
                ask(Files("0" * 24, PAIR, client=client).upload, source, "token")
            assert b'filename="photo.jpg"' in server.body
            assert str(photo.parent).encode() not in server.body


def test_different_hash_of_bridge_is_integrity_error(ask: Ask, photo: Path) -> None:
    answer = b'{"hash": "0000000000000000000000000000000000000000"}'
    with RecordingServer(answer) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Files("0" * 24, PAIR, client=client).upload, photo, "token")
    assert type(value) is IntegrityError
    assert "the bridge stored 0000" in str(value)
    assert file_hash(photo.read_bytes()) in str(value)


def test_missing_source_is_returned_as_file_not_found(
    ask: Ask, bucket: Bucket, tmp_path: Path
) -> None:
    value = ask(bucket.files.upload, tmp_path / "missing")
    assert isinstance(value, FileNotFoundError)
    assert value.filename == str(tmp_path / "missing")


def test_unwritable_target_is_returned_as_error(
    ask: Ask, bucket: Bucket, photo: Path, tmp_path: Path
) -> None:
    name = ask(bucket.files.upload, photo)["hash"]
    assert isinstance(ask(bucket.files.download, name, to=tmp_path), IsADirectoryError)
    value = ask(bucket.files.download, name, to=tmp_path / "nowhere" / "file")
    assert isinstance(value, FileNotFoundError)


def test_open_file_is_target_of_download(ask: Ask, bucket: Bucket, photo: Path) -> None:
    name = ask(bucket.files.upload, photo)["hash"]
    out = io.BytesIO()
    assert ask(bucket.files.download, name, to=out)["path"] is None
    assert out.getvalue() == photo.read_bytes()


def test_download_of_missing_file_keeps_target(ask: Ask, bucket: Bucket, tmp_path: Path) -> None:
    target = tmp_path / "old"
    target.write_bytes(b"old")
    value = ask(bucket.files.download, "0" * 40, to=target)
    assert value == {"error": "The requested file was not found"}
    assert target.read_bytes() == b"old"


def test_unknown_key_pair_gets_refusal_of_bridge(
    ask: Ask, bucket: Bucket, client: pymdc.Client, photo: Path
) -> None:
    listed = ask(bucket.list)
    files = Files(listed["id"], pymdc.ECDSA(), client=client)
    assert "error" in ask(files.upload, photo)
    assert "error" in ask(files.download, "0" * 40, to=photo)
    assert ask(files.list) == {"error": "Public key not registered"}


def test_bucket_id_cannot_change_path(ask: Ask, account: Account, client: pymdc.Client) -> None:
    value = ask(Bucket("../keys?x=", account.key_pair, client=client).list)
    assert set(value) == {"error"}


def test_rest_sends_any_request(ask: Ask, account: Account, client: pymdc.Client) -> None:
    def call_rest(*args: Any, **kwargs: Any) -> Any:
        return ask(REST, *args, **kwargs, client=client)

    assert call_rest("GET", "/keys", auth=account.user)[0]["user"] == account.user.username
    made = call_rest("post", b"buckets", {b"name": b"by REST"}, account.key_pair)
    assert made["name"] == "by REST"
    assert call_rest("GET", f"/buckets/{made['id']}", {"a": "b c"}, account.key_pair) == made
    assert call_rest("GET", "/keys") == {"error": "No authentication strategy detected"}
    token = call_rest(
        "POST", f"/buckets/{made['id']}/tokens", {"operation": "PULL"}, account.key_pair
    )
    value = call_rest(
        "GET", f"/buckets/{made['id']}/files/{'0' * 40}", headers={"x-token": token["token"]}
    )
    assert value == {"error": "The requested file was not found"}
    assert set(call_rest("GET", "/nope")) == {"error"}


def test_callback_may_be_passed_by_position(bridge: Bridge, account: Account) -> None:
    got: list[Any] = []
    with pymdc.Client(bridge.endpoint) as client:
        files = Bucket("0" * 24, account.key_pair, client=client).files
        Buckets(account.key_pair, client=client).create("x", 1, 1, [], got.append)
        Buckets(account.key_pair, client=client).list(got.append)
        Keys(account.user, client=client).create(None, got.append)
        files.token("PULL", got.append)
        files.upload("missing", None, got.append)
        files.download("0" * 40, None, got.append)
        REST("GET", "/keys", {}, account.user, {}, got.append, client=client)
    assert len(got) == 7


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: Users(5), TypeError, "the username is int"),  # type: ignore[arg-type]
        (lambda: Users("a", 5), TypeError, "the password is int"),  # type: ignore[arg-type]
        (lambda: Users("a").activate(None), TypeError, "token"),  # type: ignore[arg-type]
        (lambda: Keys("a"), TypeError, "expected Users, ECDSA or None"),  # type: ignore[arg-type]
        (lambda: Keys(Users("a")).create("k"), TypeError, "ECDSA"),  # type: ignore[arg-type]
        (lambda: Keys(Users("a")).delete("k"), TypeError, "ECDSA"),  # type: ignore[arg-type]
        (lambda: Buckets("k"), TypeError, "expected Users, ECDSA or None"),  # type: ignore[arg-type]
        (lambda: BUCKETS.create("n", "x", 1, []), ValueError, "storage is 'x'"),
        (lambda: BUCKETS.create("n", "1.5", 1, []), ValueError, "storage is '1.5'"),
        (lambda: BUCKETS.create("n", 1, float("inf"), []), ValueError, "expected whole GB"),
        (lambda: BUCKETS.create("n", float("nan"), 1, []), ValueError, "expected whole GB"),
        (lambda: BUCKETS.create("n", None, 1, []), TypeError, "storage is NoneType"),
        (lambda: BUCKETS.create(5, 1, 1, []), TypeError, "the name is int"),
        (lambda: BUCKETS.create("n", 1, 1, ["k"]), TypeError, "expected ECDSA"),
        (lambda: BUCKETS.create("n", 1, 1, NONE), TypeError, "key_pairs is NoneType; expected"),
        (lambda: BUCKETS.create("n", 1, 1, PAIR), TypeError, "key_pairs is ECDSA; expected"),
        (lambda: Bucket(5, PAIR), TypeError, "bucket's id is int"),  # type: ignore[arg-type]
        (
            lambda: FILES.upload(5),
            TypeError,
            "expected a path, a bytearray, a memoryview or a file",
        ),
        (lambda: FILES.upload("a\0b"), ValueError, "the path holds a zero byte"),
        (lambda: FILES.upload(b"a\0b"), ValueError, "bytes are a path; content is given as"),
        (lambda: FILES.upload("f", name=5), TypeError, "the name is int"),
        (lambda: FILES.upload("f", name=""), ValueError, "the name is ''; expected a file name"),
        (lambda: FILES.upload("f", name="a/b"), ValueError, "without a folder"),
        (lambda: FILES.upload("f", name=b"a\\b"), ValueError, "without a folder"),
        (lambda: FILES.upload(io.StringIO("x")), TypeError, "opened with 'rb'"),
        (lambda: FILES.upload("f", {"token": "t"}), TypeError, "the token is dict"),
        (lambda: FILES.upload("f", "secret\n"), ValueError, "expected 64 hex digits"),
        (lambda: FILES.download(5), TypeError, "the file's hash is int"),
        (lambda: BUCKETS.list(callback=7), TypeError, "expected a function"),
        (
            lambda: REST("GET", "/x", auth="user"),
            TypeError,
            "auth is str; expected Users, ECDSA or None",
        ),
        (lambda: REST("POST", "/x", {"a": object()}), TypeError, "parameter's value"),
        (lambda: REST("GET", "/x", headers={"a": "b\r\nc: d"}), ValueError, "header"),
        (lambda: REST("POST", "/x", headers={"Content-Length": "3"}), ValueError, "cannot be set"),
        (lambda: REST("GET", "/x", headers={"a b": "c"}), ValueError, "'a b' cannot be set"),
        (lambda: UNTYPED_REST("GET", "/x", headers=5), TypeError, "the headers are int"),
        (lambda: UNTYPED_REST("GET", "/x", headers=NONE), TypeError, "the headers are NoneType"),
        (
            lambda: UNTYPED_REST("GET", "/x", headers=[("a", "b")]),
            TypeError,
            "the headers are list",
        ),
        (lambda: UNTYPED_REST("GET", "/x", headers={"a": 5}), TypeError, "a header is int"),
        (lambda: REST("GE T", "/x"), ValueError, "the method is 'GE T'"),
        (lambda: REST("GET", "/x", NONE), TypeError, "the parameters are NoneType"),
        (lambda: REST("POST", "/x", {"a": float("nan")}), ValueError, "as JSON"),
        (lambda: REST("POST", "/x", {"a": ["\ud800"]}), ValueError, "as JSON"),
        (lambda: UNTYPED_BUCKET.patch(None), TypeError, "the parameters are NoneType"),
        (lambda: Bucket("", PAIR).list(), ValueError, "is empty"),
        (lambda: FILES.list(limit=0), ValueError, "the limit is 0; expected a whole number"),
        (lambda: FILES.list(after=5), TypeError, "the file's hash is int"),
        (lambda: FILES.download(""), ValueError, "is empty"),
        (lambda: FILES.download("h", to=5), TypeError, "the target is int"),
        (lambda: FILES.download("h", to=io.StringIO()), TypeError, "opened with 'wb'"),
        (lambda: FILES.download("h", to="a\0b"), ValueError, "holds a zero byte"),
        (lambda: REST("GET", "/x#y"), ValueError, "the resource is '/x#y'; expected a path"),
        (
            lambda: REST("PUT", "/x", {"a": PIPE, "b": PIPE}),
            ValueError,
            "are a, b; expected one file",
        ),
        (lambda: REST("PUT", "/x", {"a": PIPE, "b": []}), TypeError, "a parameter's value is list"),
        (lambda: REST("PUT", "/x", {"a": PIPE}, PAIR), ValueError, "a file cannot be signed"),
        (lambda: REST("POST", "/x", {"a": PIPE}), TypeError, "a parameter's value is BytesIO"),
        (lambda: Users("a", client=5), TypeError, "expected pymdc.Client"),  # type: ignore[arg-type]
        (lambda: Keys(KEYS.user, client=0), TypeError, "expected pymdc.Client"),  # type: ignore[arg-type]
        (lambda: UNTYPED_REST("GET", "/x", client=5), TypeError, "the client is int"),
        (lambda: UNTYPED_REST("GET", "/x", client=0), TypeError, "the client is int"),
    ],
)
def test_wrong_argument_is_error_at_call(make: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        make()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("more", [{}, {"callback": print}], ids=["blocking", "callback"])
def test_wrong_argument_is_error_in_both_modes(more: Any) -> None:
    with pytest.raises(ValueError, match="storage is 'x'"):
        BUCKETS.create("n", "x", 1, [], **more)
    with pytest.raises(TypeError, match="expected ECDSA"):
        KEYS.create("key", **more)
    with pytest.raises(TypeError, match="expected a path"):
        FILES.upload(5, **more)
    assert KEYS.key_pairs == []
    with pytest.raises(TypeError, match="the callback is int"):
        KEYS.create(callback=5)
    assert KEYS.key_pairs == []


def test_key_pair_signs_200_callback_calls_at_once(account: Account, client: pymdc.Client) -> None:
    buckets = Buckets(account.key_pair, client=client)
    got: list[Any] = []
    calls = [buckets.list(got.append) for _ in range(200)]
    for call in calls:
        call.join(PATIENCE)
    assert got == [[]] * 200


def test_one_worker_serves_nested_blocking_calls(bridge: Bridge, account: Account) -> None:
    seen: list[Any] = []
    with pymdc.Client(bridge.endpoint, workers=1) as client:
        buckets = Buckets(account.key_pair, client=client)
        made = buckets.create("x", 1, 1, [])

        def callback(answer: Any) -> None:
            seen.append(buckets.list() == answer)
            seen.append(Bucket(made["id"], account.key_pair, client=client).list() == made)

        buckets.list(callback).join(PATIENCE)
    assert seen == [True, True]


def test_two_clients_serve_two_bridges(bridge: Bridge, client: pymdc.Client) -> None:
    with Bridge() as other, pymdc.Client(other.endpoint) as there:
        user = Users("both@example.com", "pass", client=there)
        assert user.register()["activated"] is False
        assert "error" not in Users("both@example.com", "pass", client=client).register()
        assert user.register() == {"error": "Email is already registered"}


def test_bucket_is_shared_by_threads(bucket: Bucket) -> None:
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(bucket.list())) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 12
    assert all(answer == got[0] for answer in got)
