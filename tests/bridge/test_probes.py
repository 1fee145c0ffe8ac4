"""Health, readiness and metrics."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from backends import Backend
from plain_client import PASSWORD, Reply, User, address, ask, basic, form, head, upload_headers
from processes import MINUTE, ROOT
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pymdc.bridge import Bridge
from pymdc.bridge.serving.probes import _Shared
from pymdc.bridge.serving.threads import Threads


def at_metrics(bridge: Bridge, path: str = "/metrics", token: str = "") -> Reply:
    """Ask the port of the metrics."""
    other = Bridge()
    parts = urlsplit(bridge.metrics_endpoint)
    other.endpoint = f"{parts.scheme}://{parts.netloc}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return ask(other, "GET", path, None, headers)


def families(bridge: Bridge) -> dict[str, Metric]:
    reply = at_metrics(bridge)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(reply.body.decode())}


def values(bridge: Bridge) -> dict[tuple[str, ...], float]:
    """Return the metrics by name and labels."""
    return {
        (sample.name.removeprefix("pymdc_bridge_"), *sample.labels.values()): sample.value
        for family in families(bridge).values()
        for sample in family.samples
    }


@pytest.fixture
def bridge(backend: Backend) -> Iterator[Bridge]:
    with backend.bridge(metrics_port=0, shard_size=1000) as running:
        yield running


@pytest.mark.parametrize("path", ["/health", "/ready", "/READY/"])
def test_probe_is_answered(bridge: Bridge, path: str) -> None:
    for reply in ask(bridge, "GET", path), at_metrics(bridge, path):
        assert (reply.status, reply.headers["content-type"][:16]) == (200, "application/json")
    assert ask(bridge, "HEAD", path).status == 200
    reply = ask(bridge, "POST", path, b"x")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_probes_are_answered_while_everything_is_busy(alice: User, data: Path) -> None:
    body = json.dumps({"email": "bob@example.com", "password": PASSWORD}).encode()
    with closing(sqlite3.connect(data / "metadata.sqlite")) as busy, ExitStack() as waiting:
        busy.execute("BEGIN IMMEDIATE")
        for number, line in enumerate(
            10 * [head("POST /users", f"Content-Length: {len(body)}") + body]
            + 10 * [head("PUT /buckets/x/files", "x-token: x")]
        ):
            own = f"127.0.0.{2 + number % 5}", 0  # so that no address has too many
            wire = socket.create_connection(address(alice.bridge), source_address=own)
            waiting.enter_context(wire).sendall(line)
        for path in "/health", "/ready":
            assert ask(alice.bridge, "GET", path).status == 200
        found = values(alice.bridge)
        assert found["lane_running", "passwords"] == 4
        assert found["lane_waiting", "passwords"] == 6
        busy.rollback()


@pytest.mark.parametrize("lost", ["shards", "metadata.sqlite"])
def test_bridge_without_its_storage_is_alive_and_not_ready(
    bridge: Bridge, data: Path, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    (data / lost).rename(data / "elsewhere")
    assert ask(bridge, "GET", "/ready").error == (503, "The storage does not answer")
    assert f"the bridge is not ready: {data / lost} can't be written" in caplog.text
    assert ask(bridge, "GET", "/health").status == 200
    assert at_metrics(bridge).status == 200
    (data / "elsewhere").rename(data / lost)
    assert ask(bridge, "GET", "/ready").status == 200


def test_storage_that_hangs_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.probes.PROBE_SECONDS", 0.01)
    go_on, threads = threading.Event(), Threads()

    async def ask_often() -> int:
        shared = _Shared(threads, lambda: go_on.wait(MINUTE))
        before = threading.active_count()
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await shared.result()
        more = threading.active_count() - before
        go_on.set()
        monkeypatch.undo()
        assert await shared.result()
        return more

    with closing(threads):
        assert asyncio.run(ask_often()) <= 1


def test_stopping_bridge_is_alive_and_not_ready(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    stop = threading.Thread(target=alice.bridge.close)

    def pieces() -> Iterator[bytes]:
        yield body[:-10]
        assert at_metrics(alice.bridge, "/ready").status == 200
        stop.start()
        while at_metrics(alice.bridge, "/ready").status == 200:
            pass
        stopping = 503, "The bridge is stopping"
        assert at_metrics(alice.bridge, "/ready").error == stopping
        assert at_metrics(alice.bridge, "/health").status == 200
        yield body[-10:]

    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces(), headers)
    assert reply.status == 200
    stop.join()
    with pytest.raises(ConnectionRefusedError):
        at_metrics(alice.bridge, "/health")


def test_port_of_the_metrics_has_nothing_else(bridge: Bridge) -> None:
    for path in "/", "/buckets", "/users":
        assert at_metrics(bridge, path).error == (404, f"Cannot GET {path}")
    assert ask(bridge, "GET", "/metrics").error == (404, "Cannot GET /metrics")


def test_connections_to_the_port_of_the_metrics_are_bounded(bridge: Bridge) -> None:
    port = urlsplit(bridge.metrics_endpoint).port
    with ExitStack() as connections:
        for _ in range(50):
            connections.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert at_metrics(bridge).status == 200
        assert values(bridge)["connections",] == 0, "those of the API are counted"


@pytest.mark.parametrize("own_port", [None, 0])
def test_token_of_the_metrics_is_asked_for(data: Path, own_port: int | None) -> None:
    with Bridge(data, metrics_token="gehéim", metrics_port=own_port) as bridge:
        for token in "", "geheim", "gehéim ", "gehéi":
            encoded = token.encode().decode("latin-1")
            status = 200 if token == "gehéim " else 404
            assert at_metrics(bridge, token=encoded).status == status
        secret = "gehéim".encode().decode("latin-1")
        assert (ask(bridge, "GET", "/metrics").status) == 404
        for scheme, status in ("bearer", 200), ("Basic", 404):
            parts = urlsplit(bridge.metrics_endpoint)
            other = Bridge()
            other.endpoint = f"http://{parts.netloc}"
            reply = ask(other, "GET", "/metrics", None, {"Authorization": f"{scheme} {secret}"})
            assert reply.status == status


def test_there_are_no_metrics_unless_somebody_may_have_them(data: Path) -> None:
    with Bridge(data) as bridge:
        assert bridge.metrics_endpoint == ""
        for headers in {}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}:
            assert ask(bridge, "GET", "/metrics", None, headers).status == 404


def test_requests_are_counted(bridge: Bridge, backend: Backend) -> None:
    user = User(bridge, "alice")
    bucket = user.bucket()
    stored = user.upload(bucket, bytes(1500)).json["hash"]
    before = values(bridge)
    assert user.download(bucket, stored) == bytes(1500)
    ask(bridge, "GET", f"/nope/{bucket}")
    ask(bridge, "POST", "/users", b"12345")
    with socket.create_connection(address(bridge)) as wire:
        wire.sendall(b"x\r\n\r\n")
        assert wire.recv(1000).startswith(b"HTTP/1.1 400 ")
        # Its end is counted after the response.
        found = values(bridge)
    route = "/buckets/{id}/files/{hash}"
    assert found["requests_total", "GET", route, "200"] == 1
    assert found["requests_total", "PULL", "/", "200"] == 2
    assert found["requests_total", "GET", "-", "404"] == 1
    assert found["requests_total", "POST", "/users", "400"] == 1
    assert found["requests_total", "-", "-", "400"] == 1
    assert found["request_duration_seconds_count", "PULL", "/"] == 2
    assert found["request_duration_seconds_bucket", "+Inf", "PULL", "/"] == 2
    assert 0 < found["request_duration_seconds_sum", "PULL", "/"] < MINUTE
    assert found["stored_bytes",] == 1500
    assert (("disk_free_bytes",) in found) == backend.knows_what_is_free
    assert found["mails_waiting",] == 1, "without a mail server, mails stay in the outbox"
    assert found["sent_bytes_total",] - before["sent_bytes_total",] > 1500
    assert found["received_bytes_total",] - before["received_bytes_total",] > 5
    assert found["process_open_fds",] > 0


def test_refusals_because_of_load_are_counted(bridge: Bridge) -> None:
    assert [values(bridge)["refusals_total", status] for status in ("429", "503", "507")] == 3 * [0]
    for _ in range(6):
        ask(bridge, "GET", "/keys", None, basic("x@example.com", "0" * 64))
    found = values(bridge)
    assert found["refusals_total", "429"] == found["requests_total", "GET", "/keys", "429"] == 1


def test_bridges_in_one_process_count_for_themselves(bridge: Bridge, tmp_path: Path) -> None:
    ask(bridge, "GET", "/nope")
    with Bridge(tmp_path / "other", metrics_port=0) as other:
        assert ("requests_total", "GET", "-", "404") not in values(other)
        assert values(bridge)["requests_total", "GET", "-", "404"] == 1


def test_names_follow_the_conventions(bridge: Bridge) -> None:
    ask(bridge, "GET", "/")
    for name, family in families(bridge).items():
        assert re.fullmatch(r"(pymdc_bridge|process)_[a-z_]+", name)
        assert family.documentation.endswith(".")
        assert not name.endswith(("_ms", "_kb", "_time"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not name.endswith("_total")


def test_page_has_every_metric(bridge: Bridge) -> None:
    text = (ROOT / "docs" / "running-a-bridge.rst").read_text(encoding="utf-8")
    ask(bridge, "GET", "/")
    found = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families(bridge).items()
        if name.startswith("pymdc_bridge_")
    }
    assert set(re.findall(r"^``(pymdc_bridge_\w+)``", text, re.M)) == found
