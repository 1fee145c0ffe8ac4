"""The JSON object in the body of a request."""

from __future__ import annotations

import pytest
from plain_client import User, ask

from pymdc.bridge import Bridge


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("body", [b"[1]", b"nul", b"\xff", b"[" * 60000, b"1" * 5000, b'{"a":NaN}'])
def test_body_without_a_json_object_counts_as_empty(bridge: Bridge, body: bytes) -> None:
    message = "Password must be hex encoded SHA-256 hash"
    assert ask(bridge, "POST", "/users", body).error == (400, message)


def test_half_of_a_surrogate_pair_counts_as_no_json(alice: User) -> None:
    assert alice.ask("POST", "/buckets", {"name": "\ud800"}).status == 401  # the nonce is not read
    assert alice.ask("POST", "/buckets", {"name": "☃😀"}).json["name"] == "☃😀"
