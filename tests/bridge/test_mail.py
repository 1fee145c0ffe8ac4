"""The activation message."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from plain_client import PASSWORD, ask

from pymdc.bridge import Bridge

FIELDS = json.dumps({"email": "Alice@example.com", "password": PASSWORD})
REPLIES = {b"EHLO": b"250-me\r\n250 AUTH PLAIN LOGIN", b"DATA": b"354 go on", b"QUIT": b"221 bye"}


@contextmanager
def mail_server(received: list[bytes]) -> Iterator[str]:
    """Run an SMTP server that puts passwords and one message into *received*; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take, args=[listener, received])
        thread.start()
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def take(listener: socket.socket, received: list[bytes]) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 me\r\n")
        for line in lines:
            command = line[:4].upper()
            if command == b"AUTH":
                received.append(line)
            connection.sendall(REPLIES.get(command, b"250 ok") + b"\r\n")
            if command == b"DATA":
                received.append(b"".join(iter(lines.readline, b".\r\n")))
                connection.sendall(b"250 ok\r\n")


def text_of(message: bytes) -> tuple[str, str]:
    mail = message_from_bytes(message, policy=policy.default)
    return mail["To"], mail.get_content()


def test_message_is_sent_by_smtp(tmp_path: Path) -> None:
    received: list[bytes] = []
    with mail_server(received) as url, Bridge(tmp_path, smtp=url) as bridge:
        assert ask(bridge, "POST", "/users", FIELDS).status == 200
        link = f"{bridge.endpoint}/activations/{bridge.activation_key('alice@example.com')}"
    to, text = text_of(received[0])
    assert to == "alice@example.com"
    assert link in text
    assert not (tmp_path / "outbox").exists()


def test_password_is_not_sent_unencrypted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    received: list[bytes] = []
    with mail_server(received) as url:
        smtp = url.replace("//", "//user:secret@")
        with Bridge(tmp_path, smtp=smtp) as bridge:
            assert ask(bridge, "POST", "/users", FIELDS).status == 200
    assert received == []
    assert "was not delivered" in caplog.text
    assert "secret" not in caplog.text


def test_failed_mail_is_logged_and_the_user_can_be_activated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bridge(tmp_path, smtp="smtp://127.0.0.1:1") as bridge:
        assert ask(bridge, "POST", "/users", FIELDS).status == 200
        token = bridge.activation_key("alice@example.com")
        assert "alice@example.com was not delivered" in caplog.text
        assert token not in caplog.text
        assert ask(bridge, "GET", f"/activations/{token}").status == 200
        with pytest.raises(KeyError, match=r"no activation waits for alice@example\.com"):
            bridge.activation_key("alice@example.com")


def test_message_is_written_to_the_outbox_and_announced(tmp_path: Path) -> None:
    announced: list[tuple[str, str]] = []
    with Bridge(tmp_path, announce=lambda *news: announced.append(news)) as bridge:
        fields = {**json.loads(FIELDS), "redirect": "http://x.example/?a=1&b=☃"}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    [(email, link)] = announced
    assert email == "alice@example.com"
    assert link.endswith("?redirect=http%3A%2F%2Fx.example%2F%3Fa%3D1%26b%3D%E2%98%83")
    [path] = (tmp_path / "outbox").iterdir()
    assert os.stat(path).st_mode & 0o777 == 0o600
    to, text = text_of(path.read_bytes())
    assert (to, link in text, link in path.read_text()) == (email, True, True)


def test_failing_announcer_harms_no_registration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("no paper")

    with Bridge(tmp_path, announce=fail) as bridge:
        assert ask(bridge, "POST", "/users", FIELDS).status == 200
    assert "no paper" in caplog.text
