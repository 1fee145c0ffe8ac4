"""Uploads: to a sink, and to the real bridge.

The sink is an nginx that discards what it receives; the file is in memory.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import gets
from figures import MIB, Figures, Scale, compared, pairs, rate, speed
from parts import Account, address, bridge, delete_files, random_file, renew, sha256
from programs import curl, nginx
from raw_client import upload_request

import pymdc
from pymdc._crypto.file_hash import FileHash

BUCKET = "6b02b0fd5a7c8c5a831850a5"
SHARD = 8 * MIB  # as the bridge cuts files
SMALL = 1000  # bytes
TOKEN = "0" * 64  # given, so that the upload is the only request


def to_sink(scale: Scale) -> Figures:
    """Compare an upload with curl's; the hash is not verified."""
    return _to_sink(scale, False, _curl_to_sink)


def to_sink_verified(scale: Scale) -> Figures:
    """Compare an upload with the slower of curl's upload and SHA-256; the hash is verified."""
    return _to_sink(scale, True, lambda path, to: min(_curl_to_sink(path, to), _hashed(path)))


def _to_sink(scale: Scale, verify: bool, other: Callable[[str, str], float]) -> Figures:
    with random_file(scale.size) as path, nginx({"hash": _hash(path)}) as endpoint:
        with pymdc.Client(endpoint) as client:
            files = pymdc.api.Files(BUCKET, pymdc.ECDSA(), client=client)

            def upload() -> None:
                pymdc.unwrap(files.upload(path, TOKEN, verify=verify))

            ours, theirs = partial(speed, scale.size, upload), partial(other, path, endpoint)
            return compared(pairs(ours, theirs, scale.pairs), "MB/s")


def _curl_to_sink(path: str, endpoint: str) -> float:
    return curl(path, f"{endpoint}/buckets/{BUCKET}/files")


def _hashed(path: str) -> float:
    return speed(os.path.getsize(path), partial(sha256, path))


def _hash(path: str) -> str:
    found = FileHash()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            found.update(block)
    return found.hexdigest()


def to_bridge(scale: Scale) -> Figures:
    """Compare an upload with the same bytes hashed and written to the same disk."""
    return _to_bridge(scale, lambda _, path: _written(path, scale.folder))


def to_bridge_by_curl(scale: Scale) -> Figures:
    """Compare an upload with curl's to the same bridge."""
    return _to_bridge(scale, _by_curl)


def _to_bridge(scale: Scale, other: Callable[[Account, str], float]) -> Figures:
    with random_file(scale.size) as path, bridge(scale.folder) as account:

        def upload() -> float:
            return speed(scale.size, lambda: pymdc.unwrap(account.files.upload(path)))

        ours = partial(_with_new_content, account, path, upload)
        theirs = partial(_with_new_content, account, path, lambda: other(account, path))
        return compared(pairs(ours, theirs, scale.pairs), "MB/s")


def _with_new_content(account: Account, path: str, measure: Callable[[], float]) -> float:
    """Measure with new content, after all earlier writes have reached the disk."""
    renew(path)
    os.sync()
    rate = measure()
    delete_files(account)
    return rate


def _by_curl(account: Account, path: str) -> float:
    token = pymdc.unwrap(account.files.token("PUSH"))["token"]
    url = f"{account.client.endpoint}/buckets/{account.bucket}/files"
    return curl(path, url, f"x-token: {token}", f"x-filesize: {os.path.getsize(path)}")


def _written(path: str, folder: str) -> float:
    """Return MB/s of a loop that hashes the file, and writes and syncs each shard of it."""

    def work() -> None:
        found = hashlib.sha256()
        while shard := source.read(SHARD):
            found.update(shard)
            target.write(shard)
            os.fsync(target.fileno())

    with open(path, "rb") as source, tempfile.TemporaryFile(dir=folder, buffering=0) as target:
        return speed(os.path.getsize(path), work)


def small_to_bridge(scale: Scale) -> Figures:
    """Compare uploads of 1 KB with inserted rows and written files, all of them on the disk."""
    count = scale.calls
    with bridge(scale.folder) as account:
        server = address(account.client.endpoint)
        gets.rate(server, _small_uploads(account, gets.CONNECTIONS))

        def ours() -> float:
            return gets.rate(server, _small_uploads(account, count))

        theirs = partial(_rows_and_files, scale.folder, count)
        return compared(pairs(ours, theirs, scale.pairs), "/s")


def _small_uploads(account: Account, count: int) -> list[bytes]:
    """Return *count* uploads, encoded, each with a token and content of its own."""
    calls: list[pymdc.Call] = [
        account.files.token("PUSH", lambda _answer: None) for _ in range(count)
    ]
    tokens = [pymdc.unwrap(call.result())["token"] for call in calls]
    return [upload_request(account.bucket, token, secrets.token_bytes(SMALL)) for token in tokens]


def _rows_and_files(folder: str, count: int) -> float:
    """Return how many files of 1 KB a second are written, each with a row in a database."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        with closing(sqlite3.connect(Path(data, "db"), isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE files (hash TEXT PRIMARY KEY, name TEXT, size INTEGER)")

            def work() -> None:
                for number in range(count):
                    with open(Path(data, str(number)), "wb", 0) as file:
                        file.write(secrets.token_bytes(SMALL))
                        os.fsync(file.fileno())
                    row = secrets.token_hex(20), "small", SMALL
                    database.execute("INSERT INTO files VALUES (?, ?, ?)", row)

            return rate(count, work)
