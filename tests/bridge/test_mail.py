"""Mails: the outbox, the mail server, and what either of them may do wrong."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from certificates import certificate, context
from mail_server import MailServer
from modes import PATIENCE
from plain_client import PASSWORD, Clock, ask
from servers import RawServer, free_port, wait

from pymdc.bridge import Bridge, mail

CLOSED_PORT = "smtp://127.0.0.1:1"
NOBODY = ["550 5.1.1 nobody here"]
LATER = "450 4.2.0 greylisted"


@pytest.fixture
def outbox(data: Path) -> Path:
    return data / "outbox"


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try mails again at once."""
    monkeypatch.setattr(mail, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(mail, "LAST_RETRY", 0.02)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    with caplog.at_level(logging.INFO, "pymdc.bridge"):
        yield lambda: caplog.text


def register(bridge: Bridge, name: str = "alice", **more: object) -> str:
    """Register a user; return the link with which the user is activated."""
    fields = {"email": f"{name}@example.com", "password": PASSWORD, **more}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    return f"{bridge.endpoint}/activations/{bridge.activation_key(f'{name}@example.com')}"


def parsed(message: bytes) -> EmailMessage:
    found = message_from_bytes(message, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def receive(server: MailServer) -> EmailMessage:
    return parsed(server.mails.get(timeout=PATIENCE))


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end


def endings(outbox: Path) -> list[str]:
    """Return the endings of the files in the outbox."""
    return sorted(path.suffix for path in outbox.iterdir())


def test_mail_is_sent_by_smtp_and_leaves_the_outbox(data: Path, outbox: Path, clock: Clock) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url, clock=clock) as bridge:
        link = register(bridge, "Alice")
        message = receive(server)
        wait_until(lambda: endings(outbox) == [])
    assert (message["To"], message["From"]) == ("alice@example.com", "metadisk@127.0.0.1")
    assert message["Date"] == "Thu, 24 Mar 2016 12:00:00 +0000"
    assert message["Message-ID"].endswith("@127.0.0.1>")
    assert link in message.get_content()


def test_sender_can_be_set(data: Path) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url, mail_from="b@x.example") as bridge:
        register(bridge)
        message = receive(server)
    assert message["From"] == "b@x.example"
    assert "mail from:<b@x.example>" in " ".join(server.commands).lower()


@pytest.mark.usefixtures("_soon")
def test_mail_waits_for_a_server_that_is_down(
    data: Path, outbox: Path, log: Callable[[], str]
) -> None:
    port = free_port()
    with Bridge(data, smtp=f"smtp://127.0.0.1:{port}") as bridge:
        link = register(bridge)
        wait_until(lambda: "tried again in 0 s: [Errno 111] Connection refused" in log())
        assert link.rpartition("/")[2] not in log()
        assert endings(outbox) == [".eml"]
        with MailServer(port=port) as server:
            assert link in receive(server).get_content()
            assert ask(bridge, "GET", link.removeprefix(bridge.endpoint)).status == 200
            wait_until(lambda: endings(outbox) == [])
    assert "the mail to alice@example.com was sent" in log()


def test_mails_of_the_last_run_are_sent_at_the_start(data: Path, outbox: Path) -> None:
    with Bridge(data, smtp=CLOSED_PORT) as bridge:
        links = [register(bridge, name) for name in ("alice", "bob")]
    assert endings(outbox) == [".eml", ".eml"]
    with MailServer() as server, Bridge(data, smtp=server.url):
        messages = [receive(server) for _ in links]
        wait_until(lambda: endings(outbox) == [])
    assert [link in message.get_content() for link, message in zip(links, messages, strict=True)]
    assert server.connections == 1


def test_refused_mail_is_set_aside(data: Path, outbox: Path, log: Callable[[], str]) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url) as bridge:
        server.replies = {
            b"RCPT TO:<alice": [b"550 5.1.1 nobody"],
            b"<mail>": [b"554 spam", b"250 ok"],
        }
        for name in ("alice", "bob", "carol"):
            register(bridge, name)
        assert receive(server)["To"] == "carol@example.com"
        wait_until(lambda: endings(outbox) == [".refused", ".refused"])
    assert (
        "the mail to alice@example.com was refused: 550 5.1.1; it is kept in the outbox as "
        in log()
    )
    assert "the mail to bob@example.com was refused: 554; it is kept in the outbox as " in log()
    assert "nobody" not in log(), "the server's text may repeat what it was sent"


@pytest.mark.usefixtures("_soon")
def test_mail_that_is_refused_for_now_is_sent_later(
    data: Path, outbox: Path, log: Callable[[], str]
) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url) as bridge:
        server.replies = {b"RCPT TO:<alice": [LATER.encode(), LATER.encode(), b"250 ok"]}
        register(bridge)
        assert receive(server)["To"] == "alice@example.com"
        wait_until(lambda: endings(outbox) == [])
    assert log().count("the mail to alice@example.com is tried again in 0 s: 450 4.2.0") == 2


def test_mail_that_has_to_wait_holds_up_no_other(data: Path, outbox: Path) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url) as bridge:
        server.replies = {b"RCPT TO:<alice": [LATER.encode()]}
        for name in ("alice", "bob", "carol"):
            register(bridge, name)
        assert {receive(server)["To"] for _ in range(2)} == {"bob@example.com", "carol@example.com"}
        wait_until(lambda: endings(outbox) == [".eml"])


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("command", ["greeting", "MAIL", "DATA"])
def test_refusal_that_is_not_of_one_recipient_keeps_the_mail(
    data: Path, outbox: Path, log: Callable[[], str], command: str
) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url) as bridge:
        server.replies = {command.encode(): [b"421 4.3.2 closing"]}
        register(bridge)
        wait_until(lambda: "421 4.3.2" in log())
        assert endings(outbox) == [".eml"]
        server.replies = {}
        assert receive(server)["To"] == "alice@example.com"


def test_mail_is_sent_once_although_the_server_fails_at_the_end(data: Path, outbox: Path) -> None:
    with MailServer() as server, Bridge(data, smtp=server.url) as bridge:
        server.replies = {b"QUIT": [b"500 no"]}
        register(bridge)
        assert receive(server)["To"] == "alice@example.com"
        wait_until(lambda: endings(outbox) == [])
        register(bridge, "bob")
        assert receive(server)["To"] == "bob@example.com"
    assert server.mails.empty()


def test_stopping_does_not_wait_for_a_server_that_hangs(
    data: Path, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "SMTP_SECONDS", 1000.0)
    monkeypatch.setattr(mail, "MAIL_STOP_SECONDS", 0.01)
    with RawServer(wait) as server:
        with Bridge(data, smtp=server.endpoint.replace("http", "smtp")) as bridge:
            register(bridge)
            wait_until(lambda: server.connections)
        assert endings(outbox) == [".eml"]
    with MailServer() as other, Bridge(data, smtp=other.url):
        assert receive(other)["To"] == "alice@example.com"


@pytest.mark.parametrize("encrypted", [False, True], ids=["STARTTLS", "smtps"])
def test_password_is_sent_to_a_server_with_a_trusted_certificate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    trusted = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with MailServer(tls=context(trusted), encrypted=encrypted) as server:
        url = server.url.replace("//", "//me%40x.example@")
        with Bridge(data, smtp=url, smtp_password="secret") as bridge:
            register(bridge)
            assert receive(server)["From"] == "me@x.example"
    [authentication] = [command for command in server.commands if "AUTH" in command]
    assert authentication.startswith("TLS AUTH PLAIN")


@pytest.mark.parametrize("kind", ["without TLS", "untrusted STARTTLS", "untrusted smtps"])
def test_password_is_sent_to_no_other_server(
    data: Path, tmp_path: Path, outbox: Path, log: Callable[[], str], kind: str
) -> None:
    tls = None if kind == "without TLS" else context(certificate(tmp_path, "localhost"))
    with MailServer(tls=tls, encrypted="smtps" in kind) as server:
        url = server.url.replace("//", "//user:secret@")
        with Bridge(data, smtp=url) as bridge:
            register(bridge)
            wait_until(lambda: "mails are tried again in 30 s" in log())
    assert endings(outbox) == [".eml"]
    assert not [command for command in server.commands if "AUTH" in command]
    assert ("STARTTLS extension not supported" if tls is None else "CERTIFICATE_VERIFY") in log()
    assert "secret" not in log()
    assert "Traceback" not in log()


def test_server_without_a_password_is_used_with_the_tls_that_it_offers(
    data: Path, tmp_path: Path
) -> None:
    with MailServer(tls=context(certificate(tmp_path, "localhost"))) as server:
        with Bridge(data, smtp=server.url) as bridge:
            register(bridge)
            assert receive(server)["To"] == "alice@example.com"
    assert "TLS data" in server.commands


def test_refused_password_is_logged_without_it(
    data: Path, tmp_path: Path, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with MailServer(tls=context(trusted)) as server:
        server.replies = {b"AUTH": [b"535 5.7.8 not secret"]}
        url = server.url.replace("//", "//user@")
        with Bridge(data, smtp=url, smtp_password="secret") as bridge:
            register(bridge)
            wait_until(lambda: "SMTPAuthenticationError 535 5.7.8\n" in log())
    assert "secret" not in log()


def test_mail_is_not_sent_when_it_is_too_old(
    data: Path, outbox: Path, clock: Clock, log: Callable[[], str]
) -> None:
    with Bridge(data, clock=clock) as bridge:
        register(bridge)
        (outbox / "0.eml").write_text("To: bob@example.com\n\nof a bridge that sent no Expires")
        (outbox / "1.eml").write_bytes(b"")
    clock.seconds += 6 * 86400
    with MailServer() as server, Bridge(data, smtp=server.url, clock=clock) as bridge:
        wait_until(lambda: endings(outbox) == 3 * [".expired"])
        register(bridge, "carol")
        assert receive(server)["To"] == "carol@example.com"
    assert (
        "the mail to alice@example.com was not sent in time; it is kept in the outbox as " in log()
    )


@pytest.mark.usefixtures("_soon")
def test_mail_is_sent_once_although_two_bridges_have_one_folder(data: Path, outbox: Path) -> None:
    with Bridge(data, smtp=CLOSED_PORT) as bridge:
        register(bridge)
    [first] = outbox.iterdir()
    for number in range(20):
        shutil.copy(first, outbox / f"{number}.eml")
    port = free_port()
    url = f"smtp://127.0.0.1:{port}"
    with Bridge(data, smtp=url), Bridge(data, smtp=url):
        with MailServer(port=port) as server:  # now both send
            wait_until(lambda: endings(outbox) == [])
    assert server.mails.qsize() == 21


def test_half_written_mail_of_a_killed_bridge_is_deleted(data: Path, outbox: Path) -> None:
    with Bridge(data) as bridge:
        register(bridge)
        (outbox / "5-0123.part").write_text("To: ali")
        with Bridge(data):
            assert endings(outbox) == [".eml", ".part"], "the other bridge may be writing it"
    with Bridge(data):
        assert endings(outbox) == [".eml"]


def test_mail_that_cannot_be_kept_harms_no_registration(data: Path, log: Callable[[], str]) -> None:
    with Bridge(data) as bridge:
        (data / "outbox").write_text("no folder")
        link = register(bridge)
        assert "the mail to alice@example.com was not delivered" in log()
        assert link.rpartition("/")[2] not in log()
        assert ask(bridge, "GET", link.removeprefix(bridge.endpoint)).status == 200
        with pytest.raises(KeyError, match=r"no activation waits for alice@example\.com"):
            bridge.activation_key("alice@example.com")


def test_mail_is_written_to_the_outbox_and_announced_without_a_server(
    data: Path, outbox: Path
) -> None:
    announced: list[tuple[str, str]] = []
    with Bridge(data, announce=lambda *news: announced.append(news)) as bridge:
        register(bridge, redirect="http://x.example/?a=1&b=☃")
    [(email, link)] = announced
    assert email == "alice@example.com"
    assert link.endswith("?redirect=http%3A%2F%2Fx.example%2F%3Fa%3D1%26b%3D%E2%98%83")
    [path] = outbox.iterdir()
    assert os.stat(path).st_mode & 0o777 == 0o600
    message = parsed(path.read_bytes())
    assert (message["To"], message["From"]) == (email, "metadisk@localhost")
    assert link in message.get_content()
    assert link in path.read_text()


def test_failing_announcer_harms_no_registration(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("no paper")

    with Bridge(data, announce=fail) as bridge:
        register(bridge)
    assert "no paper" in caplog.text
