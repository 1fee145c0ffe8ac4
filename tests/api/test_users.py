"""The account of a user over the API, in both modes, against the real bridge."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from modes import PATIENCE, Ask
from servers import RawServer, read_request, read_some, written

import pymdc
from pymdc import exceptions
from pymdc.api import Buckets, Keys, Users
from pymdc.bridge import Bridge
from pymdc.rest import REST
from pymdc.testing import Account

WRONG_PASSWORD = {"error": "Invalid email or password"}
TAKEN = {"error": "Public key is already registered"}
UNTYPED_USER: Any = Users("a")


@pytest.fixture
def tokens() -> SimpleQueue[str]:
    """Collect the tokens in the mails for new passwords."""
    return SimpleQueue()


@pytest.fixture
def announcing(tokens: SimpleQueue[str]) -> Iterator[pymdc.Client]:
    """Give the client of a bridge with *tokens* and an activated user."""

    def announce(_email: str, link: str) -> None:
        if "/activations/" not in link:
            tokens.put(link)

    now = iter(range(1_700_000_000, 1_800_000_000, 60))
    with Bridge(announce=announce, clock=lambda: next(now)) as bridge:
        with pymdc.Client(bridge.endpoint) as client:
            user = Users("you@example.com", "pass", client=client)
            user.register()
            user.activate(bridge.activation_key(user.username))
            yield client


def test_password_is_changed(ask: Ask, account: Account, client: pymdc.Client) -> None:
    user = account.user
    assert ask(user.change_password, "another")["email"] == user.username
    assert user.password == "another"
    assert len(ask(Keys(user).list)) == 1
    assert ask(Keys(Users(user.username, "pass", client=client)).list) == WRONG_PASSWORD
    assert ask(Buckets(account.key_pair, client=client).list) == [], "keys are kept"


def test_refused_password_changes_no_attribute(
    ask: Ask, account: Account, client: pymdc.Client
) -> None:
    user = Users(account.user.username, "wrong", client=client)
    assert ask(user.change_password, "another") == WRONG_PASSWORD
    assert ask(user.reset_password, "0" * 64, "another") == {"error": "Invalid reset token"}
    assert user.password == "wrong"


def test_failure_changes_no_attribute(ask: Ask) -> None:
    with pymdc.Client("http://127.0.0.1:1") as client:
        user = Users("you@example.com", "pass", client=client)
        for method, *args in ((user.change_password,), (user.reset_password, "token")):
            assert isinstance(ask(method, *args, "another"), exceptions.ConnectError)
        assert user.password == "pass"


def test_forgotten_password_is_replaced_with_a_token_from_the_mail(
    ask: Ask, announcing: pymdc.Client, tokens: SimpleQueue[str]
) -> None:
    user = Users("you@example.com", client=announcing)
    assert ask(user.forgot_password) == {"email": "you@example.com"}
    token = tokens.get(timeout=PATIENCE)
    assert ask(user.reset_password, token.encode(), b"another")["email"] == user.username
    assert user.password == "another"
    assert ask(Keys(user).list) == []
    nobody = Users("nobody@example.com", client=announcing)
    assert ask(nobody.forgot_password) == {"email": "nobody@example.com"}


def test_account_is_deleted(ask: Ask, account: Account, client: pymdc.Client) -> None:
    user = account.user
    Buckets(account.key_pair, client=client).create("photos", 1, 1, [])
    assert ask(user.delete) == ""
    assert ask(Keys(user).list) == WRONG_PASSWORD
    assert ask(user.delete) == WRONG_PASSWORD
    assert ask(user.register)["activated"] is False


def test_deletion_of_an_account_is_sent_once(ask: Ask) -> None:
    """The second request would be refused, since the account has no password any more."""
    with RawServer(read_some) as server:
        with pymdc.Client(server.endpoint) as client:
            value = ask(Users("you@example.com", "pass", client=client).delete)
    assert type(value) is exceptions.ConnectionLost
    assert server.connections == 1


def test_invitation_is_used_up(ask: Ask) -> None:
    with Bridge(registration="invite") as bridge, pymdc.Client(bridge.endpoint) as client:
        user = Users("you@example.com", "pass", client=client)
        assert ask(user.register) == {"error": "Registration needs an invitation"}
        assert ask(user.register, invitation=b"x") == {"error": "The invitation is not valid"}


class RecordingServer(RawServer):
    """Records the head and the body of each request, and answers it."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        super().__init__(self._record)

    def __enter__(self) -> RecordingServer:
        return self

    def _record(self, connection: socket.socket) -> None:
        self.requests.append(read_request(connection))
        connection.sendall(written("200 OK", b"{}", "Connection: close"))


def test_invitation_is_sent_only_if_there_is_one(ask: Ask) -> None:
    with RecordingServer() as server, pymdc.Client(server.endpoint) as client:
        user = Users("you@example.com", "pass", client=client)
        ask(user.register)
        ask(user.register, invitation="code")
    plain, invited = (json.loads(body) for _, body in server.requests)
    assert plain == {"email": "you@example.com", "password": user.password_hash()}
    assert invited == {**plain, "invitation": "code"}


def test_new_key_signs_its_registration_besides_the_password(ask: Ask) -> None:
    pair = pymdc.ECDSA()
    with RecordingServer() as server, pymdc.Client(server.endpoint) as client:
        ask(Keys(Users("you@example.com", "pass", client=client)).create, pair)
    [(head, body)] = server.requests
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    fields = json.loads(body)
    assert fields.keys() == {"key", "user", "__nonce"}
    assert (fields["key"], fields["user"]) == (pair.get_public_key(), "you@example.com")
    assert headers["authorization"].startswith("Basic ")
    assert headers["x-pubkey"] == pair.get_public_key()
    assert pair.valid_signature(headers["x-signature"], b"POST\n/keys\n" + body)


@pytest.mark.parametrize("compressed", [True, False])
def test_registered_key_is_proven(
    ask: Ask, account: Account, client: pymdc.Client, bridge: Bridge, compressed: bool
) -> None:
    pair, other = pymdc.ECDSA(), Users("other-" + account.user.username, "pass", client=client)
    pair.use_compression = compressed
    other.register()
    other.activate(bridge.activation_key(other.username))
    claim = {"key": pair.get_public_key()}
    assert "error" not in ask(REST, "POST", "/keys", claim, other, client=client)
    assert ask(Keys(account.user).create, pair)["user"] == account.user.username
    assert ask(Keys(other).list) == [], "a claim without a signature gives way"
    assert ask(Keys(other).create, pair) == TAKEN


def test_key_without_its_private_key_is_registered_without_a_proof(
    ask: Ask, account: Account, client: pymdc.Client
) -> None:
    for user in (account.user, account.key_pair):
        public = pymdc.ECDSA(pymdc.ECDSA().get_public_key())
        created = ask(Keys(user, client=client).create, public)
        assert created["key"] == public.get_public_key()
    assert ask(Keys(account.key_pair, client=client).create)["user"] == account.user.username


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: UNTYPED_USER.change_password(5), TypeError, "the password is int"),
        (lambda: UNTYPED_USER.reset_password(None, "x"), TypeError, "the token is NoneType"),
        (lambda: UNTYPED_USER.reset_password("secret", 5), TypeError, "the password is int"),
        (lambda: UNTYPED_USER.register(invitation=5), TypeError, "the invitation is int"),
        (lambda: UNTYPED_USER.change_password("x", 5), TypeError, "the callback is int"),
        (lambda: Users("").delete(), ValueError, "is empty"),
    ],
)
def test_wrong_argument_is_error_at_call(make: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        make()
    assert "secret" not in str(caught.value)
