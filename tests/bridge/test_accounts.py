"""Accounts: another password, and the end of an account."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest
from backends import Backend
from modes import PATIENCE
from plain_client import (
    DATA,
    PASSWORD,
    Clock,
    Count,
    Key,
    Reply,
    Rows,
    User,
    ask,
    basic,
    form,
    upload_headers,
)

from pymdc.bridge import Bridge
from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context
from pymdc.bridge.routes import Route, accounts
from pymdc.bridge.serving import app
from pymdc.bridge.serving.request import Request
from pymdc.bridge.settings import MAX_PASSWORD_HASHES
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.removal import remove_account_piece
from pymdc.bridge.storage.sqlite import SQLiteDatabase

NEW = 64 * "a"
WRONG = (401, "Invalid email or password")
NO_STRATEGY = (401, "No authentication strategy detected")
INVALID_TOKEN = (400, "Invalid reset token")
ALICE = "/users/alice@example.com"


@pytest.fixture
def mails() -> SimpleQueue[tuple[str, str]]:
    """Collect the address and the token of each mail."""
    return SimpleQueue()


@pytest.fixture
def bridge(backend: Backend, clock: Clock, mails: SimpleQueue[tuple[str, str]]) -> Iterator[Bridge]:
    def announce(email: str, link: str) -> None:
        if "/activations/" not in link:
            mails.put((email, link))

    with backend.bridge(clock=clock, announce=announce, shard_size=1000) as running:
        yield running


@pytest.fixture
def token(
    bridge: Bridge, clock: Clock, mails: SimpleQueue[tuple[str, str]]
) -> Callable[[User], str]:
    """Give a function that asks for a new password and returns the token in the mail."""

    def request(user: User) -> str:
        clock.seconds += 60
        assert ask(bridge, "POST", f"/users/{user.email}/reset").status == 200
        email, found = mails.get(timeout=PATIENCE)
        assert email == user.email
        return found

    return request


def sign_in(user: User, password: str = PASSWORD) -> Reply:
    return ask(user.bridge, "GET", "/keys", None, basic(user.email, password))


def change(user: User, new: object = NEW, old: str = PASSWORD, path: str = ALICE) -> Reply:
    body = json.dumps({"password": new})
    return ask(user.bridge, "PATCH", path, body, basic(user.email, old))


def reset(user: User, token: object, password: str = NEW, path: str = ALICE) -> Reply:
    body = json.dumps({"token": token, "password": password})
    return ask(user.bridge, "PUT", f"{path}/reset", body)


def remove(user: User, password: str = PASSWORD, path: str = ALICE) -> Reply:
    return ask(user.bridge, "DELETE", path, None, basic(user.email, password))


def push(user: User, bucket: str, token: str) -> Reply:
    headers = upload_headers(token, len(DATA))
    return ask(user.bridge, "PUT", f"/buckets/{bucket}/files", form(DATA), headers)


def test_password_is_changed_with_the_old_one(alice: User) -> None:
    assert change(alice, path="/Users/ALICE%40example.com/").json == {
        "activated": True,
        "created": "2016-03-24T12:00:00.000Z",
        "email": alice.email,
        "id": alice.email,
    }
    assert sign_in(alice).error == WRONG
    assert sign_in(alice, NEW).status == 200
    assert alice.ask("GET", "/keys").status == 200, "keys are kept"


def test_tokens_of_the_old_password_are_void(alice: User, token: Callable[[User], str]) -> None:
    bob = User(alice.bridge, "bob")
    pending, bucket, other = token(alice), alice.bucket(), bob.bucket()
    pushing, others = alice.token(bucket, "PUSH"), bob.token(other, "PUSH")
    assert change(alice).status == 200
    assert push(alice, bucket, pushing).error == (401, "Invalid or expired token")
    assert reset(alice, pending).error == INVALID_TOKEN
    assert push(bob, other, others).status == 200


def test_change_of_password_is_refused_without_the_old_one(alice: User, bridge: Bridge) -> None:
    bob = User(bridge, "bob")
    assert change(alice, old=NEW).error == WRONG
    assert alice.ask("PATCH", ALICE, {"password": NEW}).error == NO_STRATEGY
    assert change(bob).error == (403, "Not authorized for this account")
    assert change(bob, path="/users/nobody@example.com").error == change(bob).error
    for wrong in ("secret", None, 5):
        assert change(alice, wrong).error == (400, "Password must be hex encoded SHA-256 hash")
    assert sign_in(alice).status == 200


def test_change_of_password_is_refused_when_another_one_was_faster(
    alice: User, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    def hash_slowly(*_: object) -> str:
        backend.execute("UPDATE users SET password = 'another' WHERE email LIKE 'alice%'")
        return "new"

    monkeypatch.setattr("pymdc.bridge.passwords.Passwords.hash", hash_slowly)
    assert change(alice).error == WRONG


def test_new_password_is_set_with_a_token_from_the_mail(
    alice: User, token: Callable[[User], str], backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pymdc")
    mailed = token(alice)
    assert mailed not in str(backend.execute("SELECT * FROM resets")), "its hash is stored"
    assert reset(alice, mailed).json["email"] == alice.email
    assert sign_in(alice).error == WRONG
    assert sign_in(alice, NEW).status == 200
    assert reset(alice, mailed).error == INVALID_TOKEN
    assert "PUT /users/alice@example.com/reset" in caplog.text
    assert mailed not in caplog.text


def test_who_sets_the_password_by_mail_has_the_account_alone(
    alice: User, token: Callable[[User], str]
) -> None:
    """A stranger may have registered the address, and its owner may have activated the account."""
    friend = Key("friend")
    bucket = alice.bucket(pubkeys=[friend.public, alice.key.uncompressed])
    pushing, path = alice.token(bucket, "PUSH"), f"/buckets/{bucket}"
    assert reset(alice, token(alice)).status == 200
    assert alice.ask("GET", "/keys").error == (401, "Public key not registered")
    assert push(alice, bucket, pushing).error == (401, "Invalid or expired token")
    pull = {"operation": "PULL"}
    assert alice.ask("POST", f"{path}/tokens", pull).error == (404, "Bucket not found")
    fields = ask(alice.bridge, "GET", path, None, basic(alice.email, NEW)).json
    assert fields["pubkeys"] == [friend.public]
    assert alice.ask("POST", f"{path}/tokens", pull, key=friend).status == 200


def test_every_token_of_the_last_hour_is_good_until_one_is_used(
    alice: User, clock: Clock, token: Callable[[User], str]
) -> None:
    """Otherwise a stranger who asks each minute could keep the owner from setting a password."""
    late, first, second = token(alice), token(alice), token(alice)
    clock.seconds += 3600 - 120
    assert reset(alice, late).error == INVALID_TOKEN
    assert reset(alice, first).status == 200
    assert reset(alice, second).error == INVALID_TOKEN


def test_new_password_is_refused_without_the_token_of_the_account(
    alice: User, bridge: Bridge, token: Callable[[User], str], rows: Rows
) -> None:
    bob = User(bridge, "bob")
    mailed = token(bob)
    for wrong in (mailed, mailed[:-1], "", None, 5, "ü"):
        assert reset(alice, wrong).error == INVALID_TOKEN
    assert reset(alice, mailed, "secret").error == (
        400,
        "Password must be hex encoded SHA-256 hash",
    )
    assert rows("resets") == 1
    assert reset(bob, mailed, path="/users/bob@example.com").status == 200


def test_answer_does_not_say_whether_there_is_an_account(
    alice: User, backend: Backend, clock: Clock, mails: SimpleQueue[tuple[str, str]]
) -> None:
    bridge, bob = alice.bridge, User(alice.bridge, "bob")
    fields = {"email": "waiting@example.com", "password": PASSWORD}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    backend.execute("UPDATE users SET disabled = true WHERE email = 'bob@example.com'")
    clock.seconds += 60
    for name in ("nobody", "waiting", "bob", "ALICE"):
        reply = ask(bridge, "POST", f"/users/{name}@example.com/reset")
        assert (reply.status, reply.json) == (200, {"email": f"{name.lower()}@example.com"})
    assert mails.get(timeout=PATIENCE)[0] == alice.email
    reply = ask(bridge, "POST", "/users/no%20address/reset")
    assert reply.error == (400, "User validation failed")
    assert sign_in(bob).error == (403, "User account is disabled")
    assert mails.empty()


def test_address_gets_at_most_one_mail_a_minute(
    alice: User, clock: Clock, mails: SimpleQueue[tuple[str, str]], rows: Rows
) -> None:
    User(alice.bridge, "bob")
    for seconds in (0, 59, 1, 59):
        clock.seconds += seconds
        assert ask(alice.bridge, "POST", f"{ALICE}/reset").status == 200
    assert ask(alice.bridge, "POST", "/users/bob@example.com/reset").status == 200
    alice_, bob = "alice@example.com", "bob@example.com"
    assert [mails.get(timeout=PATIENCE)[0] for _ in range(3)] == [alice_, alice_, bob]
    assert rows("resets") == 3


def test_disabled_account_can_do_nothing(
    alice: User, backend: Backend, token: Callable[[User], str]
) -> None:
    mailed, disabled = token(alice), (403, "User account is disabled")
    backend.execute("UPDATE users SET disabled = true")
    assert reset(alice, mailed).error == INVALID_TOKEN
    assert change(alice).error == disabled
    assert remove(alice).error == disabled
    backend.execute("UPDATE users SET disabled = false")
    assert sign_in(alice).status == 200


def test_new_password_does_not_have_to_wait_for_wrong_ones(
    alice: User, token: Callable[[User], str]
) -> None:
    for _ in range(6):
        sign_in(alice, NEW[::-1].replace("a", "b"))
    assert sign_in(alice).status == 429
    mailed = token(alice)
    for _ in range(6):
        sign_in(alice, "wrong")
    assert reset(alice, mailed).status == 200
    assert sign_in(alice, NEW).status == 200


ROWS_OF_USERS = ("users", "public_keys", "buckets", "tokens", "resets", "uploads")
ROWS_OF_FILES = ("files", "file_shards", "shards")


def test_removed_account_leaves_nothing(
    alice: User, objects: Count, rows: Rows, token: Callable[[User], str]
) -> None:
    bridge = alice.bridge
    for _ in range(2):
        bucket = alice.bucket()
        alice.upload(bucket, DATA)
    token(alice)
    alice.token(bucket, "PULL")
    reply = remove(alice)
    assert (reply.status, reply.body) == (204, b"")
    assert not any(rows(table) for table in (*ROWS_OF_USERS, *ROWS_OF_FILES))
    assert objects() == 0
    assert sign_in(alice).error == WRONG
    assert alice.ask("GET", "/buckets").error == (401, "Public key not registered")
    again = User(bridge, "alice")
    assert again.ask("GET", "/buckets").json == []


def test_request_of_a_removed_account_cannot_be_repeated_by_the_next_one(alice: User) -> None:
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    assert remove(alice).status == 204
    again = User(alice.bridge, "alice")
    assert again.ask("GET", "/keys", nonce=5).error == (401, "Invalid nonce supplied")


def test_address_that_is_registered_again_is_not_removed_as_before(
    alice: User, bridge: Bridge
) -> None:
    """A bridge may find an account that is marked, and another bridge finish its removal."""
    piece = partial(
        remove_account_piece, bridge._database, bridge._housekeeper._objects, alice.email
    )
    assert ask(bridge, "DELETE", ALICE, None, basic(alice.email, PASSWORD)).status == 204
    again = User(bridge, "alice")
    bucket = again.bucket()
    assert piece()
    assert again.ask("GET", f"/buckets/{bucket}").status == 200


def test_removal_of_an_account_is_refused_without_its_password(alice: User) -> None:
    bob = User(alice.bridge, "bob")
    assert remove(alice, NEW).error == WRONG
    assert alice.ask("DELETE", ALICE).error == NO_STRATEGY
    assert remove(bob).error == (403, "Not authorized for this account")
    assert sign_in(alice).status == 200


def test_removal_that_was_broken_off_is_finished(
    backend: Backend, clock: Clock, objects: Count, rows: Rows
) -> None:
    with backend.bridge(shard_size=1000, clock=clock) as bridge:
        alice, bob = User(bridge, "alice"), User(bridge, "bob")
        for user in (alice, bob, alice):
            user.upload(user.bucket(), DATA)
    backend.execute("UPDATE users SET removed = 1 WHERE email = 'alice@example.com'")
    with backend.bridge(shard_size=1000, clock=clock) as bridge:
        bridge._housekeeper.keep_house()
        assert (rows("users"), rows("buckets"), objects()) == (1, 1, 3)
        alice.bridge = bridge
        assert sign_in(alice).error == WRONG
        assert User(bridge, "alice").ask("GET", "/buckets").json == []


def test_account_that_is_being_removed_can_do_nothing(
    alice: User, backend: Backend, token: Callable[[User], str]
) -> None:
    mailed = token(alice)
    backend.execute("UPDATE users SET removed = 1")
    assert sign_in(alice).error == WRONG
    assert reset(alice, mailed).error == INVALID_TOKEN
    fields = {"email": alice.email, "password": PASSWORD}
    again = ask(alice.bridge, "POST", "/users", json.dumps(fields))
    assert again.error == (400, "Email is already registered")


def test_passwords_do_not_wait_for_removals(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    removing, released = threading.Semaphore(0), threading.Event()

    def remove_slowly(database: SQLiteDatabase, objects: ObjectStore, email: str) -> bool:
        removing.release()
        return released.is_set() and remove_account_piece(database, objects, email)

    monkeypatch.setattr(accounts, "remove_account_piece", remove_slowly)
    users = [User(alice.bridge, f"user{number}") for number in range(MAX_PASSWORD_HASHES)]
    threads = [
        threading.Thread(target=remove, args=[user, PASSWORD, f"/users/{user.email}"])
        for user in users
    ]
    for thread in threads:
        thread.start()
        assert removing.acquire(timeout=PATIENCE)
    assert sign_in(alice).status == 200
    released.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sign_in(users[0]).error == WRONG


@pytest.mark.parametrize(
    ("path", "fields"), [("/buckets", {}), ("/keys", {"key": Key("other").public})]
)
def test_request_whose_account_is_removed_meanwhile_is_refused(
    alice: User, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, str]
) -> None:
    def remove_and_authenticate(route: Route, context: Context, request: Request) -> Identity:
        identity = authenticate(route, context, request)
        if request.path == path:
            assert remove(alice, PASSWORD).status == 204
        return identity

    authenticate = app._authenticate
    monkeypatch.setattr(app, "_authenticate", remove_and_authenticate)
    reply = ask(alice.bridge, "POST", path, json.dumps(fields), basic(alice.email, PASSWORD))
    assert reply.error == (401, "User account was removed")
