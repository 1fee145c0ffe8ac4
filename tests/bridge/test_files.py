"""Files, and the pointers to their shards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from plain_client import DATA, Count, Rows, User, ask, form, upload_headers

from pymdc._crypto.file_hash import file_hash


def test_channel_address_has_the_requested_host(alice: User) -> None:
    bucket = alice.bucket()
    stored = alice.upload(bucket, b"abc").json["hash"]
    headers = {"x-token": alice.token(bucket, "PULL"), "Host": "bridge.example:8"}
    [pointer] = ask(alice.bridge, "GET", f"/buckets/{bucket}/files/{stored}", None, headers).json
    assert pointer["channel"] == "ws://bridge.example:8"


def test_shared_shards_stay_until_the_last_file_is_removed(
    alice: User, bucket: str, objects: Count, rows: Rows
) -> None:
    other, longer = alice.bucket(), DATA[:2000] + b"else"
    for where, data in ((bucket, DATA), (other, DATA), (other, longer)):
        alice.upload(where, data)
    assert objects() == 4
    assert alice.ask("DELETE", f"/buckets/{bucket}/files/{file_hash(DATA)}").status == 204
    assert objects() == 4
    assert alice.ask("DELETE", f"/buckets/{other}/files/{file_hash(DATA)}").status == 204
    assert objects() == 3
    assert alice.download(other, file_hash(longer)) == longer
    assert alice.ask("DELETE", f"/buckets/{other}").status == 204
    assert (objects(), rows("files"), rows("shards"), rows("file_shards")) == (0, 0, 0, 0)


@pytest.mark.parametrize("operation", ["PUSH", "PULL"])
def test_one_of_simultaneous_requests_with_a_token_succeeds(
    alice: User, bucket: str, operation: str
) -> None:
    alice.upload(bucket, DATA)
    path, token = f"/buckets/{bucket}/files", alice.token(bucket, operation)
    start = threading.Barrier(8)

    def present(_: int) -> int:
        start.wait()
        if operation == "PUSH":
            headers = upload_headers(token, len(DATA))
            return ask(alice.bridge, "PUT", path, form(DATA), headers).status
        return ask(
            alice.bridge, "GET", f"{path}/{file_hash(DATA)}", None, {"x-token": token}
        ).status

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(present, range(8))) == [200] + 7 * [401]
