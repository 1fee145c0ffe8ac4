"""The log: a line for each request, without secrets, and never more than one."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_client import PASSWORD, User, address, ask, basic, form, head, pull, upload_headers
from processes import bridge_process, python

from pymdc.bridge import Bridge, logs
from pymdc.bridge.admin.program import main
from pymdc.bridge.logs import FORMATTERS, Entry, JSONFormatter, LineHandler, TextFormatter
from pymdc.bridge.settings import LOG_SECONDS

NUMBERS = r"in=\d+ out=\d+ \d+\.\d{4}s [0-9a-f]{16}"


class Log(io.StringIO):
    """What the bridge has logged at INFO."""

    def lines(self, bridge: Bridge) -> list[str]:
        """Close *bridge*, and return the lines without time and level."""
        bridge.close()
        found = [re.fullmatch(r"\S+Z INFO (.+)", line) for line in self.getvalue().split("\n")[:-1]]
        assert all(found), self.getvalue()
        return [line[1] for line in found if line]


@pytest.fixture
def log() -> Iterator[Log]:
    log, logger = Log(), logging.getLogger("pymdc.bridge")
    handler = logging.StreamHandler(log)
    handler.setFormatter(TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield log
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def test_request_is_a_line(log: Log, bridge: Bridge) -> None:
    ask(bridge, "POST", "/users?x=secret", b"{}")
    [line] = log.lines(bridge)
    told = "Password must be hex encoded SHA-256 hash"
    assert re.fullmatch(
        rf'127\.0\.0\.1 - POST /users 400 in=2 out=53 0\.\d+s [0-9a-f]{{16}} "{told}"', line
    )


def test_request_is_a_line_of_json() -> None:
    entry = Entry("::1", "GET", "/keys", who="a@example.com", sent=2, note='"x"')
    entry.finish(200)
    record = logging.LogRecord("pymdc.bridge.requests", logging.INFO, "", 0, entry, None, None)
    record.created = 1_458_820_800.1239
    line = JSONFormatter().format(record)
    assert json.loads(line) == {
        "time": "2016-03-24T12:00:00.123Z",
        "level": "info",
        "logger": "pymdc.bridge.requests",
        "address": "::1",
        "who": "a@example.com",
        "method": "GET",
        "path": "/keys",
        "status": 200,
        "received": 0,
        "sent": 2,
        "seconds": round(entry.seconds, 4),
        "request": entry.request,
        "note": '"x"',
    }


def test_lines_tell_who_it_was(log: Log, bridge: Bridge) -> None:
    user = User(bridge, "alice")
    bucket = user.bucket()
    user.download(bucket, user.upload(bucket, bytes(1500)).json["hash"])
    lines = [re.sub(NUMBERS, "#", line).removeprefix("127.0.0.1 ") for line in log.lines(bridge)]
    assert lines == [
        "- POST /users 200 #",
        "- GET /activations/... 200 #",
        "alice@example.com POST /buckets 200 #",
        f"alice@example.com POST /buckets/{bucket}/tokens 200 #",
        f"{bucket} PUT /buckets/{bucket}/files 200 #",
        f"alice@example.com POST /buckets/{bucket}/tokens 200 #",
        f"{bucket} GET /buckets/{bucket}/files/{lines[6].split('/')[-1].split(' ')[0]} 200 #",
        f"{bucket} PULL / 200 #",
        f"{bucket} PULL / 200 #",
    ]
    assert [re.findall(r"out=(\d+)", line)[0] for line in log.lines(bridge)[-2:]] == ["1000", "500"]


def test_failed_login_removal_and_quota_are_seen(log: Log, bridge: Bridge) -> None:
    user = User(bridge, "alice")
    bucket = user.bucket(storage=0)
    ask(bridge, "GET", "/keys", None, basic(user.email, "0" * 64))
    user.upload(bucket, b"data")
    user.ask("DELETE", f"/buckets/{bucket}")
    user.ask("DELETE", f"/keys/{user.key.public}")
    failed, _, quota, removal, key = log.lines(bridge)[3:]
    assert re.search(r"alice@example.com GET /keys 401 .*Invalid email or password", failed)
    assert re.search(r" 413 .*The bucket has no room for 4 bytes more", quota)
    assert f"alice@example.com DELETE /buckets/{bucket} 204 " in removal
    assert f"alice@example.com DELETE /keys/{user.key.public} 200 " in key


def test_unreadable_head_and_channel_without_a_path_are_lines(log: Log, bridge: Bridge) -> None:
    upgrade = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    for sent in (b"\n\x1b[31mGET\r\n\r\n", head("GET /nope", *upgrade, key)):
        with socket.create_connection(address(bridge)) as wire:
            wire.sendall(sent)
            assert wire.recv(1000).startswith(b"HTTP/1.1 4")
    unreadable, channel = log.lines(bridge)
    assert re.fullmatch(rf'127\.0\.0\.1 - - - 400 {NUMBERS} "Invalid HTTP .*"', unreadable)
    assert re.fullmatch(rf"127\.0\.0\.1 - GET /nope 403 {NUMBERS}", channel)


@pytest.mark.parametrize("style", FORMATTERS)
@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\nb",
        "a\x1b[2Jb",
        "a\x9b31mb",
        "a b",
        "a\u2028b",
        "a\u202eb",
        "a\x7fb",
        "a\ud800",
    ],
    ids=ascii,
)
def test_text_of_a_client_makes_no_line_and_no_field(text: str, style: str) -> None:
    formatter = FORMATTERS[style]()
    entry = Entry("127.0.0.1", "GET", text, who=text, note=text)
    entry.finish(401)
    for message in (entry, f"the mail to {text} failed"):
        record = logging.LogRecord("x", logging.INFO, "", 0, message, None, None)
        line = formatter.format(record)
        assert line.isprintable()
        line.encode()
        if message is entry and style == "text":
            assert len(line.partition(' "')[0].split(" ")) == 11


def test_traceback_makes_no_line_that_looks_like_one_of_the_log() -> None:
    try:
        raise ValueError("x\n2026-01-01T00:00:00.000Z INFO 127.0.0.1 faked\x1b")
    except ValueError as error:
        info = type(error), error, error.__traceback__
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, info)
    first, *others = TextFormatter().format(record).split("\n")
    assert first.endswith("Z ERROR failed")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert len(others) > 3
    assert "\n" not in JSONFormatter().format(record)


def test_long_path_is_cut(log: Log, bridge: Bridge) -> None:
    ask(bridge, "GET", "/" + 5000 * "é%0a".encode().hex())
    ask(bridge, "GET", "/keys", None, basic(5000 * "n", "x"))
    assert [len(line) < 700 for line in log.lines(bridge)] == [True, True]


@pytest.mark.parametrize("style", FORMATTERS)
def test_log_has_no_secret(tmp_path: Path, style: str) -> None:
    options = "--log-level", "debug", "--log-format", style
    bridge, secrets = Bridge(), list[str]()
    with bridge_process(tmp_path, *options) as (bridge.endpoint, process):
        assert process.stdout
        fields = {"email": "alice@example.com", "password": PASSWORD}
        ask(bridge, "POST", "/users", json.dumps(fields))
        token = process.stdout.readline().split("/")[-1].strip()
        for method, path in (
            ("POST", f"/activations/{token}"),
            ("GET", f"//activations/{token}"),
            ("GET", f"/activation/{token}?{token}"),
            ("GET", f"/ACTIVATIONS/{token[:-2]}/"),
            ("POST", f"/resets/{token[:30]}"),
            ("GET", f"/activations/{token}"),
        ):
            ask(bridge, method, path, b"", {"Referer": token})
        user = User(bridge, "alice", known=True)
        ask(
            bridge,
            "POST",
            "/keys",
            json.dumps({"key": user.key.public}),
            basic(user.email, PASSWORD),
        )
        ask(bridge, "GET", "/keys", None, basic(PASSWORD, user.email))
        bucket = user.bucket()
        stored = user.upload(bucket, b"data").json["hash"]
        [pointer] = user.pointers(bucket, stored).json
        pull(pointer)
        used = user.token(bucket, "PUSH")
        for _ in range(2):
            path = f"/buckets/{bucket}/files"
            ask(bridge, "PUT", path, form(b"x"), upload_headers(used, 1))
        secrets += [PASSWORD, token[:30], used, pointer["token"], "Basic ", "Authorization"]
        process.terminate()
        assert process.stderr
        log = process.stderr.read()
    assert log.count("/activations/") == 4
    assert log.count("alice@example.com") == 5
    assert [secret for secret in secrets if secret in log] == []
    assert "Traceback" not in log


def test_disabled_user_is_named(data: Path, alice: User, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert main(["--data", str(data), "users", "disable", alice.email]) == 0
    assert alice.ask("GET", "/buckets").status == 403
    alice.bridge.close()  # which waits for the line
    assert f" {alice.email} GET /buckets 403 " in caplog.text


EMBEDDED = """
import logging, sys
sys.path.insert(0, sys.argv[1])
from plain_client import ask
from pymdc.bridge import Bridge, logs

with Bridge() as bridge:
    print(ask(bridge, "GET", "/nope").status, ask(bridge, "POST", "/users", b"{}").status)
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    ask(bridge, "GET", "/nope")
"""


def test_bridge_in_a_program_logs_only_if_the_program_does() -> None:
    done = python("-c", EMBEDDED, Path(__file__).parents[1] / "support")
    assert done.stdout == "404 400\n"
    # The line of the request before the last may be written a moment after its answer.
    [line] = [line for line in done.stderr.splitlines() if "/nope" in line]
    assert re.fullmatch(rf"pymdc\.bridge\.requests 127\.0\.0\.1 - GET /nope 404 {NUMBERS}", line)


def test_lines_of_a_loop_are_written_together_soon(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LineHandler()

    async def emit() -> str:
        for number in range(3):
            handler.handle(logging.makeLogRecord({"msg": f"{number}\n"}))
        before, later = capsys.readouterr().err, asyncio.Event()
        asyncio.get_running_loop().call_later(LOG_SECONDS, later.set)  # after the lines
        await later.wait()
        return before

    handler.handle(logging.makeLogRecord({"msg": "none"}))
    assert capsys.readouterr().err == "none\n", "without a loop"
    assert asyncio.run(emit()) == ""
    assert capsys.readouterr().err == "0\n\n1\n\n2\n\n"


def test_log_that_nobody_reads_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_UNREAD", 1000)
    reader, writer = os.pipe()
    handler, log = logs.LineHandler(), logging.Logger("unread")
    log.addHandler(handler)
    with open(reader, encoding="utf-8") as read, open(writer, "w", encoding="utf-8") as stream:
        handler.setStream(stream)
        for number in range(3000):
            log.warning("%d %s", number, 100 * "x")
        for _ in range(300):  # as many as make room
            read.readline()
        log.warning("the last line")
        handler.close()
        stream.close()
        *_, kept, told, last = read.read().splitlines()
    number = int(kept.split()[0])
    assert told == f"{2999 - number} lines of the log are lost: nobody has read those before them"
    assert last == "the last line"


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_output_that_nobody_reads_holds_no_request_up(data: Path, which: str) -> None:
    with bridge_process(data) as (endpoint, process):
        bridge = Bridge()
        bridge.endpoint = endpoint
        pipe = getattr(process, which)
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        for number in range(12):
            fields = {"email": f"{number}@example.com", "password": PASSWORD, "redirect": 900 * "x"}
            assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
            assert ask(bridge, "GET", "/" + 400 * "x").status == 404
