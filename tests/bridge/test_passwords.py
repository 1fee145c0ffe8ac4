"""Passwords."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from backends import Backend
from plain_client import PASSWORD, Reply, User, ask, basic
from processes import python

from pymdc.bridge import Bridge
from pymdc.bridge.passwords import Passwords
from pymdc.bridge.settings import PASSWORD_COST


def by_password(bridge: Bridge, email: str, password: str) -> Reply:
    return ask(bridge, "GET", "/keys", headers=basic(email, password))


def test_right_password_is_accepted_and_a_wrong_one_refused(alice: User) -> None:
    assert by_password(alice.bridge, alice.email, PASSWORD).status == 200
    refusal = (401, "Invalid email or password")
    assert by_password(alice.bridge, alice.email, PASSWORD.upper()).error == refusal
    assert by_password(alice.bridge, "nobody@example.com", PASSWORD).error == refusal


def test_unknown_user_costs_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSWORD_COST, "n", 2**14)  # conftest.py lowers it
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


def test_password_is_hashed_at_full_cost_outside_of_tests() -> None:
    program = """
import sys
from pymdc.bridge.passwords import Passwords
print(Passwords().hash(sys.argv[1]))
"""
    run = python("-c", program, PASSWORD)
    assert run.stdout.startswith("scrypt$16384$8$1$"), run.stderr


def test_stored_hash_is_salted_and_is_not_the_password(alice: User, backend: Backend) -> None:
    User(alice.bridge, "bob")
    [[first], [second]] = backend.execute("SELECT password FROM users")
    assert first != second
    assert PASSWORD not in first
