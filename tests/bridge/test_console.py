"""The console's files, and the choice between the page and JSON."""

from __future__ import annotations

import json
import re
from contextlib import closing
from http.client import HTTPConnection
from importlib import resources
from pathlib import Path
from queue import SimpleQueue

import pytest
from modes import PATIENCE
from plain_client import PASSWORD, User, address, ask

from pymdc.bridge import Bridge

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FILES = {
    file.name: file.read_text("utf-8")
    for file in resources.files("pymdc.bridge").joinpath("console").iterdir()
}


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (CHROME, True),
        ("text/html, application/xhtml+xml, */*", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("application/json;q=0.5, text/html;q=0.6", True),
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=0.5, */*", False),
        ("text/html;q=nan, application/json;q=0.1", True),
        (";;,,q=", False),
    ],
)
def test_page_is_for_who_prefers_html(bridge: Bridge, accept: str | None, page: bool) -> None:
    reply = ask(bridge, "GET", "/", None, {} if accept is None else {"Accept": accept})
    assert reply.status == 200
    if page:
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.body.decode() == FILES["index.html"]
    else:
        assert reply.json["swagger"] == "2.0"


@pytest.mark.parametrize("accept", [CHROME, "*/*"])
def test_caches_are_told_that_the_answer_depends_on_accept(bridge: Bridge, accept: str) -> None:
    with closing(HTTPConnection(*address(bridge), timeout=20)) as connection:
        connection.request("GET", "/", headers={"Accept": accept})
        assert connection.getresponse().headers.get_all("Vary") == ["Accept", "Origin"]


def test_page_may_load_nothing_of_others_and_is_in_no_frame(bridge: Bridge) -> None:
    for path in ("/", "/console/console.js"):
        headers = ask(bridge, "GET", path, None, {"Accept": CHROME}).headers
        assert headers["content-security-policy"].split("; ") == [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in headers


def test_page_and_its_files_make_no_html_of_texts() -> None:
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", FILES["index.html"])
    for name, text in FILES.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"localStorage|sessionStorage|indexedDB|\.cookie", text)
        elsewhere = [link for link in re.findall(r"https?://[\w.]+", text) if "w3.org" not in link]
        assert elsewhere == [], name


@pytest.mark.parametrize("name", sorted({*FILES} - {"index.html"}))
def test_file_is_sent_with_its_type_and_a_tag(bridge: Bridge, name: str) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    reply = ask(bridge, "GET", f"/console/{name}")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith(kinds[name.partition(".")[2]])
    assert reply.body.decode() == FILES[name]
    known = {"If-None-Match": f'"other", W/{reply.headers["etag"]}'}
    again = ask(bridge, "GET", f"/console/{name}", None, known)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"])
    assert "content-length" not in again.headers
    assert ask(bridge, "GET", f"/console/{name}", None, {"If-None-Match": '"other"'}).status == 200


def test_page_has_a_tag(bridge: Bridge) -> None:
    reply = ask(bridge, "GET", "/", None, {"Accept": CHROME})
    known = {"Accept": CHROME, "If-None-Match": reply.headers["etag"]}
    assert ask(bridge, "GET", "/", None, known).status == 304
    del known["Accept"]
    assert ask(bridge, "GET", "/", None, known).json["swagger"] == "2.0"


@pytest.mark.parametrize(
    "name", ["index.html", "nothing.js", "..", "%2e%2e%2fmail.py", "../mail.py", "__init__.py"]
)
def test_nothing_else_is_sent(bridge: Bridge, name: str) -> None:
    assert ask(bridge, "GET", f"/console/{name}").status == 404


def test_head_of_the_page_has_no_body(bridge: Bridge) -> None:
    reply = ask(bridge, "HEAD", "/", None, {"Accept": CHROME})
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) == len(FILES["index.html"].encode())


def activation(bridge: Bridge, query: str = "") -> str:
    """Register somebody, and return the link that activates the account."""
    fields = {"email": "bob@example.com", "password": PASSWORD}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    return f"/activations/{bridge.activation_key('bob@example.com')}{query}"


def test_activation_leads_a_browser_to_the_page(bridge: Bridge) -> None:
    link, browser = activation(bridge), {"Accept": CHROME}
    assert ask(bridge, "HEAD", link, None, browser).status == 302, "it activates nobody"
    reply = ask(bridge, "GET", link, None, browser)
    assert (reply.status, reply.headers["location"]) == (302, "/#activated")
    again = ask(bridge, "GET", link, None, browser)
    assert (again.status, again.headers["location"]) == (302, "/#not-activated")
    assert ask(bridge, "GET", link).error == (400, "Invalid activation token")


def test_activation_leads_a_browser_where_its_registration_said(bridge: Bridge) -> None:
    link = activation(bridge, "?redirect=https://example.com/hello")
    reply = ask(bridge, "GET", link, None, {"Accept": CHROME})
    assert (reply.status, reply.headers["location"]) == (302, "https://example.com/hello")


def test_mail_with_a_token_says_on_which_page_to_use_it(data: Path) -> None:
    mailed = SimpleQueue[str]()
    url = "https://bridge.example.com"
    with Bridge(data, url=url, announce=lambda _, text: mailed.put(text)) as bridge:
        alice = User(bridge, "alice")
        mailed.get(timeout=PATIENCE)
        ask(bridge, "POST", f"/users/{alice.email}/reset")
        token = mailed.get(timeout=PATIENCE)
    [mail] = [text for file in (data / "outbox").iterdir() if token in (text := file.read_text())]
    assert f"In a browser, do that at {url}/#reset" in mail.splitlines()


def test_channel_is_where_it_was(alice: User) -> None:
    bucket = alice.bucket()
    entry = alice.upload(bucket, b"abc").json
    assert alice.download(bucket, entry["hash"]) == b"abc"
