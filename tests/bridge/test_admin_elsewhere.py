"""``python -m pymdc.bridge admin`` for a bridge whose database or store are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from administration import Admin, admin_of
from backends import Backend
from plain_client import DATA, PASSWORD, Count, User, ask

from pymdc.bridge import Bridge


@pytest.fixture
def admin(backend: Backend, capsys: pytest.CaptureFixture[str]) -> Admin:
    return admin_of(backend.data, capsys, *backend.options()[2:])


@pytest.fixture
def bridge(backend: Backend) -> Iterator[Bridge]:
    """Give a bridge whose clock is that of the commands."""
    with backend.bridge(shard_size=1000) as running:
        yield running


def test_users_are_looked_after(admin: Admin, alice: User, objects: Count) -> None:
    alice.upload(bucket := alice.bucket(), DATA)
    [row] = admin("users", "list", "--json").json
    assert (row["email"], row["state"], row["used"]) == (alice.email, "active", len(DATA))
    assert admin("users", "disable", alice.email).status == 0
    assert alice.ask("GET", "/buckets").error == (403, "User account is disabled")
    assert admin("users", "enable", alice.email).status == 0
    assert admin("buckets", "quota", bucket, "--storage", "0").status == 0
    assert alice.ask("GET", f"/buckets/{bucket}").json["storage"] == 0
    assert admin("users", "delete", alice.email, "--yes").status == 0
    assert (admin("users", "list", "--json").json, objects()) == ([], 0)


def test_invitation_is_made(backend: Backend, admin: Admin) -> None:
    with backend.bridge(registration="invite") as bridge:
        code = admin("users", "invite").text.strip()
        fields = {"email": "carol@example.com", "password": PASSWORD, "invitation": code}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200


def test_usage_is_told(backend: Backend, admin: Admin, alice: User) -> None:
    alice.upload(alice.bucket(), DATA)
    value = admin("usage", "--json").json
    assert (value["files"], value["objects_size"]) == (1, len(DATA))
    assert value["database_size"] > 4096
    assert (value["disk_free"] is not None) == backend.knows_what_is_free
    assert ("\ndisk " in admin("usage").text) == backend.knows_what_is_free


@pytest.mark.parametrize("command", ["backup x", "restore x"])
def test_commands_for_a_folder_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    database = "--database=postgresql+psycopg://127.0.0.1:1/bridge"
    done = admin_of(tmp_path, capsys, database)(*command.split())
    assert done.status == 1
    assert "for a bridge that has all in its folder; " in done.errors
    wrong = admin_of(tmp_path, capsys, "--store=x")("usage")
    assert (wrong.status, wrong.text) == (2, "")
    assert "--store is wrong; expected s3://" in wrong.errors


def test_database_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("PYMDC_BRIDGE_DATABASE", "postgresql+psycopg://x@127.0.0.1:1/bridge")
    monkeypatch.setenv("PYMDC_BRIDGE_DATABASE_PASSWORD", "secret-of-mine")
    done = admin_of(tmp_path, capsys)("users", "list")
    assert (done.status, done.text) == (1, "")
    assert ":1/bridge can't be used: " in done.errors
    assert "secret-of-mine" not in done.errors
