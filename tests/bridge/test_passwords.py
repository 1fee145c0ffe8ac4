"""Passwords, and who must not be told apart by them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asking import PASSWORD, Reply, User, ask, basic

from pymdc.bridge import Bridge
from pymdc.bridge.passwords import Passwords


def by_password(bridge: Bridge, email: str, password: str) -> Reply:
    return ask(bridge, "GET", "/keys", headers=basic(email, password))


def test_password_lets_in_and_another_does_not(alice: User) -> None:
    assert by_password(alice.bridge, alice.email, PASSWORD).status == 200
    refusal = (401, "Invalid email or password")
    assert by_password(alice.bridge, alice.email, PASSWORD.upper()).error == refusal
    assert by_password(alice.bridge, "nobody@example.com", PASSWORD).error == refusal


def test_nobody_costs_the_work_of_somebody() -> None:
    work: list[dict[str, Any]] = []

    def scrypt(password: bytes, **cost: Any) -> bytes:
        work.append({name: value for name, value in cost.items() if name != "salt"})
        return hashlib.scrypt(password, **cost)

    passwords = Passwords(scrypt)
    stored = passwords.hash(PASSWORD)
    assert passwords.matches(PASSWORD, stored)
    assert not passwords.matches("other", stored)
    assert not passwords.matches(PASSWORD, None)
    assert work == 4 * [{"n": 2**14, "r": 8, "p": 1}]


def test_what_is_stored_is_salted_and_is_not_the_password(alice: User, data: Path) -> None:
    User(alice.bridge, "bob")
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        first, second = (row[0] for row in connection.execute("SELECT password FROM users"))
    assert first != second
    assert PASSWORD not in first


@pytest.mark.parametrize("email", ["a b@c.d", "a@b@c", "a\n@b.c", "x,y@b.c", "@b.c", "a@", 5, None])
def test_what_is_no_address_is_not_registered(bridge: Bridge, email: object) -> None:
    fields = json.dumps({"email": email, "password": PASSWORD})
    assert ask(bridge, "POST", "/users", fields).error == (400, "User validation failed")


def test_key_that_is_taken_undoes_the_registration(alice: User) -> None:
    fields = {"email": "bob@example.com", "password": PASSWORD, "pubkey": alice.key.public}
    reply = ask(alice.bridge, "POST", "/users", json.dumps(fields))
    assert reply.error == (400, "Public key is already registered")
    with pytest.raises(KeyError):
        alice.bridge.activation_key("bob@example.com")
