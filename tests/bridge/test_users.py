"""Registration and activation."""

from __future__ import annotations

import json
import re

import pytest
from plain_client import PASSWORD, User, ask

from pymdc.bridge import Bridge


def test_redirect_cannot_contain_a_line_break(bridge: Bridge) -> None:
    fields = {"email": "a@example.com", "password": PASSWORD}
    ask(bridge, "POST", "/users", json.dumps(fields))
    link = f"/activations/{bridge.activation_key('a@example.com')}"
    reply = ask(bridge, "GET", f"{link}?redirect=http://x.example/%0d%0aA:%20b")
    assert reply.status == 302
    assert re.fullmatch(r"http://x\.example/%0D%0AA:%20b", reply.headers["location"])


@pytest.mark.parametrize("email", ["a b@c.d", "a@b@c", "a\n@b.c", "x,y@b.c", "@b.c", "a@", 5, None])
def test_invalid_email_address_is_refused(bridge: Bridge, email: object) -> None:
    fields = json.dumps({"email": email, "password": PASSWORD})
    assert ask(bridge, "POST", "/users", fields).error == (400, "User validation failed")


def test_taken_key_undoes_the_registration(alice: User) -> None:
    fields = {"email": "bob@example.com", "password": PASSWORD, "pubkey": alice.key.public}
    reply = ask(alice.bridge, "POST", "/users", json.dumps(fields))
    assert reply.error == (400, "Public key is already registered")
    with pytest.raises(KeyError):
        alice.bridge.activation_key("bob@example.com")
