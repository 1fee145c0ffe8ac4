"""Registration and activation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from backends import Backend
from plain_client import PASSWORD, Clock, Key, Reply, Rows, User, ask, basic

from pymdc.bridge import Bridge

TAKEN = (400, "Email is already registered")
OTHER = 64 * "a"  # another password
ALICE = "alice@example.com"


@pytest.fixture
def links() -> list[str]:
    """Collect the links in the mails."""
    return []


@pytest.fixture
def bridge(backend: Backend, clock: Clock, links: list[str]) -> Iterator[Bridge]:
    with backend.bridge(clock=clock, announce=lambda _, link: links.append(link)) as running:
        yield running


def register(bridge: Bridge, email: str = ALICE, **more: object) -> Reply:
    fields = {"email": email, "password": PASSWORD, **more}
    return ask(bridge, "POST", "/users", json.dumps(fields))


def follow(bridge: Bridge, link: str) -> Reply:
    return ask(bridge, "GET", link.removeprefix(bridge.endpoint))


def test_redirect_cannot_contain_a_line_break(bridge: Bridge) -> None:
    register(bridge)
    link = f"/activations/{bridge.activation_key(ALICE)}"
    reply = ask(bridge, "GET", f"{link}?redirect=http://x.example/%0d%0aA:%20b")
    assert reply.status == 302
    assert re.fullmatch(r"http://x\.example/%0D%0AA:%20b", reply.headers["location"])


@pytest.mark.parametrize("email", ["a b@c.d", "a@b@c", "a\n@b.c", "x,y@b.c", "@b.c", "a@", 5, None])
def test_invalid_email_address_is_refused(bridge: Bridge, email: object) -> None:
    fields = json.dumps({"email": email, "password": PASSWORD})
    assert ask(bridge, "POST", "/users", fields).error == (400, "User validation failed")


def test_taken_key_undoes_the_registration(alice: User) -> None:
    reply = register(alice.bridge, "bob@example.com", pubkey=alice.key.public)
    assert reply.error == (400, "Public key is already registered")
    with pytest.raises(KeyError):
        alice.bridge.activation_key("bob@example.com")


def test_registration_can_be_repeated_after_the_clock_was_set_back(
    bridge: Bridge, clock: Clock
) -> None:
    register(bridge)
    clock.seconds -= 86_400
    assert register(bridge).status == 200


def test_registration_that_nobody_activates_is_deleted_after_30_days(
    bridge: Bridge, clock: Clock, links: list[str], rows: Rows
) -> None:
    key = Key("alice").public
    register(bridge, pubkey=key)
    clock.seconds += 30 * 86_400
    bridge._housekeeper.keep_house()
    assert register(bridge, "bob@example.com", pubkey=key).status == 400
    clock.seconds += 0.001
    bridge._housekeeper.keep_house()
    assert register(bridge, "bob@example.com", pubkey=key).status == 200
    assert follow(bridge, links[0]).error == (400, "Invalid activation token")
    assert (rows("users"), rows("public_keys")) == (1, 1)


def test_registration_that_waits_can_be_repeated_after_a_minute(
    bridge: Bridge, clock: Clock, links: list[str]
) -> None:
    assert register(bridge).json["created"] == "2016-03-24T12:00:00.000Z"
    clock.seconds += 59
    assert register(bridge, "ALICE@example.com").error == TAKEN
    assert len(links) == 1, "at most one mail a minute"
    clock.seconds += 1
    assert register(bridge, "ALICE@example.com").json == {
        "activated": False,
        "created": "2016-03-24T12:01:00.000Z",
        "email": ALICE,
        "id": ALICE,
    }
    assert follow(bridge, links[0]).error == (400, "Invalid activation token")
    assert follow(bridge, links[1]).json["activated"] is True
    clock.seconds += 3600
    assert register(bridge).error == TAKEN
    assert len(links) == 2


def test_key_is_of_use_once_its_user_is_activated(
    alice: User, clock: Clock, links: list[str]
) -> None:
    bridge, key = alice.bridge, Key("of bob")
    assert register(bridge, "bob@example.com", pubkey=key.public).status == 200
    inactive = (401, "User account has not been activated")
    assert alice.ask("GET", "/keys", key=key, nonce=5).error == inactive
    assert follow(bridge, links[-1]).status == 200
    assert alice.ask("GET", "/keys", key=key, nonce=5).status == 200
    assert alice.ask("GET", "/keys", key=key, nonce=5).error == (401, "Invalid nonce supplied")


def test_later_registration_takes_nothing_of_the_earlier_one(
    bridge: Bridge, clock: Clock, links: list[str]
) -> None:
    key = Key("of the first")
    assert register(bridge, pubkey=key.public).status == 200
    clock.seconds += 60
    assert register(bridge, password=OTHER).status == 200
    follow(bridge, links[1])
    wrong = ask(bridge, "GET", "/keys", None, basic(ALICE, PASSWORD))
    assert wrong.error == (401, "Invalid email or password")
    assert ask(bridge, "GET", "/keys", None, basic(ALICE, OTHER)).json == []
    bob = User(bridge, "bob")
    assert bob.ask("POST", "/keys", {"key": key.public}).status == 200, "nobody has the key"


def test_refused_registration_leaves_the_earlier_one_as_it_was(
    alice: User, clock: Clock, links: list[str]
) -> None:
    bridge, key = alice.bridge, Key("of bob")
    assert register(bridge, "bob@example.com", pubkey=key.public).status == 200
    clock.seconds += 60
    assert register(bridge, "bob@example.com", pubkey=alice.key.public).status == 400
    assert follow(bridge, links[-1]).status == 200
    keys = ask(bridge, "GET", "/keys", None, basic("bob@example.com", PASSWORD)).json
    assert [entry["key"] for entry in keys] == [key.public]


def test_disabled_account_cannot_be_registered_again(
    bridge: Bridge, backend: Backend, clock: Clock
) -> None:
    register(bridge)
    backend.execute("UPDATE users SET disabled = true")
    clock.seconds += 60
    assert register(bridge).error == TAKEN


def test_closed_registration_refuses_everybody(backend: Backend) -> None:
    with backend.bridge(registration="closed") as bridge:
        assert register(bridge).error == (403, "Registration is closed")
        assert register(bridge, invitation="x").error == (403, "Registration is closed")


@pytest.fixture
def inviting(backend: Backend, clock: Clock, links: list[str]) -> Iterator[Bridge]:
    """Give a bridge with the invitations ``one`` and ``two``."""
    announce = lambda _, link: links.append(link)  # noqa: E731
    with backend.bridge(clock=clock, announce=announce, registration="invite") as running:
        invitations = [{"code": "one"}, {"code": "two"}]
        backend.execute("INSERT INTO invitations (code, created) VALUES (:code, 0)", invitations)
        yield running


def test_invitation_is_good_for_one_address(
    inviting: Bridge, clock: Clock, links: list[str]
) -> None:
    needs = (403, "Registration needs an invitation")
    invalid = (403, "The invitation is not valid")
    assert register(inviting).error == needs
    assert register(inviting, invitation=5).error == needs
    assert register(inviting, invitation="three").error == invalid
    assert register(inviting, invitation="one").status == 200
    assert register(inviting, "bob@example.com", invitation="one").error == invalid
    clock.seconds += 60
    assert register(inviting).error == needs
    assert register(inviting, invitation="one").status == 200, "the mail is sent again"
    assert follow(inviting, links[1]).status == 200
    clock.seconds += 60
    assert register(inviting, invitation="one").error == TAKEN


def test_refused_registration_uses_no_invitation_up(inviting: Bridge) -> None:
    assert register(inviting, invitation="one").status == 200
    assert register(inviting, invitation="two").error == TAKEN
    assert register(inviting, "bob@example.com", pubkey="x", invitation="two").status == 400
    assert register(inviting, "bob@example.com", invitation="two").status == 200
