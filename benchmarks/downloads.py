"""Downloads from the real bridge to files in memory, so that no disk is measured."""

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
    """Compare a download with a loop that pulls the same shards in turn, hashes and writes them."""
    return _from_bridge(scale, _write)


def from_bridge_beside_pull(scale: Scale) -> Figures:
    """Compare a download with a loop that pulls the same shards in turn and discards them."""
    return _from_bridge(scale, _discard)


def _from_bridge(scale: Scale, other: Callable[[Pointers, bytes, str], int]) -> Figures:
    with random_file(scale.size) as path, bridge(scale.folder) as account:
        files, back, digest = account.files, path + ".back", sha256(path)
        file_hash = pymdc.unwrap(files.upload(path))["hash"]

        def ours() -> float:
            rate = speed(scale.size, lambda: pymdc.unwrap(files.download(file_hash, to=back)))
            os.unlink(back)
            return rate

        def theirs() -> float:
            pointers = pymdc.unwrap(files.download(file_hash))
            received: list[int] = []
            rate = speed(scale.size, lambda: received.append(other(pointers, digest, back)))
            if received != [scale.size]:
                raise RuntimeError(f"{received[0]} bytes of {scale.size} were received")
            with suppress(FileNotFoundError):
                os.unlink(back)
            return rate

        return compared(pairs(ours, theirs, scale.pairs), "MB/s")


def _write(pointers: Pointers, digest: bytes, path: str) -> int:
    """Write the received bytes to *path*; return their number."""
    file_hash, count = hashlib.sha256(), 0
    with open(path, "wb", buffering=0) as file:
        for message in _messages(pointers):
            file_hash.update(message)
            count += file.write(message)
    if file_hash.digest() != digest:
        raise RuntimeError("the received bytes are not the file")
    return count


def _discard(pointers: Pointers, digest: bytes, path: str) -> int:
    """Return the number of received bytes."""
    return sum(map(len, _messages(pointers)))


def _messages(pointers: Pointers) -> Iterator[bytes]:
    """Yield the messages from the channels of *pointers*, one channel after the other."""
    for pointer in pointers:
        request = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
        with connect(pointer["channel"], max_size=None, compression=None, proxy=None) as channel:
            channel.send(json.dumps(request))
            for message in channel:
                assert isinstance(message, bytes)
                yield message
