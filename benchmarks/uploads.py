"""Uploads: to a sink, and to the real bridge.

The sink is an nginx that discards what it receives; the file is in memory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import partial

from figures import MIB, Figures, Scale, compared, pairs, speed
from parts import Account, bridge, delete_files, random_file, renew, sha256
from programs import curl, nginx

import pymdc
from pymdc._crypto.file_hash import FileHash

BUCKET = "6b02b0fd5a7c8c5a831850a5"
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
    """Return MB/s of hashing the file and writing it to the disk, in blocks of 1 MiB."""

    def work() -> None:
        found = hashlib.sha256()
        while block := source.read(MIB):
            found.update(block)
            target.write(block)
        os.fsync(target.fileno())

    with open(path, "rb") as source, tempfile.TemporaryFile(dir=folder, buffering=0) as target:
        return speed(os.path.getsize(path), work)
