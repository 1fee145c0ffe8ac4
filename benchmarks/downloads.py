"""Downloads from the real bridge, into memory, so that no disk is measured."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from figures import Figures, Scale, compared, pairs, speed
from parts import bridge, random_file, sha256
from websockets.sync.client import connect

import pymdc

Pointers = Iterable[Mapping[str, str]]


def from_bridge(scale: Scale) -> Figures:
    """Compare a download with its shards pulled one after the other, hashed and written."""
    return _from_bridge(scale, _write)


def from_bridge_beside_pull(scale: Scale) -> Figures:
    """Compare a download with its shards pulled one after the other and thrown away."""
    return _from_bridge(scale, _discard)


def _from_bridge(scale: Scale, other: Callable[[Pointers, bytes, str], int]) -> Figures:
    with random_file(scale.size) as path, bridge(scale.folder) as account:
        files, back, digest = account.files, path + ".back", sha256(path)
        file_hash = pymdc.unwrap(files.upload(path))["hash"]

        def ours() -> float:
            found = speed(scale.size, lambda: pymdc.unwrap(files.download(file_hash, to=back)))
            os.unlink(back)
            return found

        def theirs() -> float:
            pointers = pymdc.unwrap(files.download(file_hash))
            came: list[int] = []
            found = speed(scale.size, lambda: came.append(other(pointers, digest, back)))
            if came != [scale.size]:
                raise RuntimeError(f"{came[0]} bytes came of {scale.size}")
            with suppress(FileNotFoundError):
                os.unlink(back)
            return found

        return compared(pairs(ours, theirs, scale.pairs), "MB/s")


def _write(pointers: Pointers, digest: bytes, path: str) -> int:
    """Write what comes to *path*; return how many bytes that were."""
    found, count = hashlib.sha256(), 0
    with open(path, "wb", buffering=0) as file:
        for message in _messages(pointers):
            found.update(message)
            count += file.write(message)
    if found.digest() != digest:
        raise RuntimeError("what came is not the file")
    return count


def _discard(pointers: Pointers, digest: bytes, path: str) -> int:
    """Return how many bytes come."""
    return sum(map(len, _messages(pointers)))


def _messages(pointers: Pointers) -> Iterator[bytes]:
    """Give what comes from the channels of *pointers*, one after the other."""
    for pointer in pointers:
        wanted = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
        with connect(pointer["channel"], max_size=None, compression=None, proxy=None) as channel:
            channel.send(json.dumps(wanted))
            for message in channel:
                assert isinstance(message, bytes)
                yield message
