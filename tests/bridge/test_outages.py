"""A database and a store that do not answer for some time."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_client import User, ask
from postgres import postgres

from pymdc.bridge import Bridge


def test_bridge_outlasts_a_kill_of_its_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        postgres(tmp_path, fsync=True) as server,
        Bridge(tmp_path / "data", database=server.new_database(), metrics_token="x") as bridge,
    ):
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        stored = alice.upload(bucket, b"abc").json["hash"]
        server.kill()
        for reply in alice.ask("GET", "/keys"), alice.ask("POST", "/buckets", {}):
            assert (reply.status, reply.headers["retry-after"]) == (503, "2"), reply.body
        assert ask(bridge, "GET", "/ready").status == 503
        assert ask(bridge, "GET", "/health").status == 200
        metrics = ask(bridge, "GET", "/metrics", None, {"Authorization": "Bearer x"})
        assert (metrics.status, b"stored_bytes" in metrics.body) == (200, False)
        server.start()
        assert ask(bridge, "GET", "/ready").status == 200
        assert alice.download(bucket, stored) == b"abc"
        while alice.upload(bucket, b"abcd").status == 503:
            pass  # it gives up the connections that were lost when it needs them
        assert alice.upload(bucket, b"abcd").status == 200
    assert "Traceback" not in caplog.text
