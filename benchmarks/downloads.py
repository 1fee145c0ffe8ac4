"""Downloads from the real bridge, into memory, so that no disk is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from figures import Figures, Scale, compared, pairs, speed
from parts import bridge, random_file
from websockets.sync.client import connect

import pymdc


def from_bridge(scale: Scale) -> Figures:
    """Compare a download with its shards pulled one after the other and thrown away."""
    with random_file(scale.size) as path, bridge(scale.folder) as account:
        files, back = account.files, path + ".back"
        file_hash = pymdc.unwrap(files.upload(path))["hash"]

        def ours() -> float:
            found = speed(scale.size, lambda: pymdc.unwrap(files.download(file_hash, to=back)))
            os.unlink(back)
            return found

        def theirs() -> float:
            pointers = pymdc.unwrap(files.download(file_hash))
            return speed(scale.size, lambda: _pull(pointers, scale.size))

        return compared(pairs(ours, theirs, scale.pairs), "MB/s")


def _pull(pointers: Iterable[Mapping[str, str]], size: int) -> None:
    came = sum(map(_pulled, pointers))
    if came != size:
        raise RuntimeError(f"{came} bytes came of {size}")


def _pulled(pointer: Mapping[str, str]) -> int:
    """Return the number of bytes that came from the channel of *pointer*."""
    wanted = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
    with connect(pointer["channel"], max_size=None, compression=None, proxy=None) as channel:
        channel.send(json.dumps(wanted))
        return sum(map(len, channel))
