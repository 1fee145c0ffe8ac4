"""Buckets."""

from __future__ import annotations

from plain_client import User


def test_null_as_a_list_of_keys_is_refused(alice: User) -> None:
    path = f"/buckets/{alice.bucket()}"
    reply = alice.ask("PATCH", path, {"name": "other", "pubkeys": None})
    assert reply.error == (400, "Bucket validation failed")
    shown = alice.ask("GET", path).json
    assert (shown["name"], shown["pubkeys"]) == ("New Bucket", [alice.key.public])
    for dropped in ("text", 5, False):
        assert alice.ask("PATCH", path, {"pubkeys": dropped}).json == shown
    assert alice.ask("PATCH", path, {"pubkeys": []}).json["pubkeys"] == []
    assert alice.ask("POST", "/buckets", {"pubkeys": None}).json["pubkeys"] == [alice.key.public]
