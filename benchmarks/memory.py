"""How much memory a transfer takes, in the client and in the bridge.

Each transfer has a fresh process as client, and each set of sizes has a fresh process as bridge.
A figure is the peak of resident memory (VmHWM) of a process, less what was resident after a
transfer of 1 MB: the first transfer of the client, and the first ones of the bridge.
The files are sparse, on the disk.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from figures import Figures, Scale, spread
from parts import Account, bridge, delete_files
from programs import fresh

import pymdc

WHAT = "extra memory, the largest file less the smallest"
_SMALL = 1_000_000  # bytes of the transfer after which memory is counted

Grown = dict[str, float]


def upload(scale: Scale) -> Figures:
    """Measure the memory of uploads."""
    return _figures([[up for up, _ in each] for each in _sets(scale)])


def download(scale: Scale) -> Figures:
    """Measure the memory of downloads."""
    return _figures([[down for _, down in each] for each in _sets(scale)])


def _figures(sets: Sequence[Sequence[Grown]]) -> Figures:
    extra = [grown[-1]["client"] - grown[0]["client"] for grown in sets]
    ours, theirs = _medians(sets, "client"), f"bridge: {_medians(sets, 'bridge')}"
    return Figures(statistics.median(extra), spread(extra), ours, theirs)


def _medians(sets: Sequence[Sequence[Grown]], process: str) -> str:
    """Return the median growth of *process* for each size."""
    sizes = zip(*sets, strict=True)
    medians = [statistics.median(grown[process] for grown in size) for size in sizes]
    return " / ".join(f"{median:.1f}" for median in medians) + " MiB"


@cache
def _sets(scale: Scale) -> list[list[tuple[Grown, Grown]]]:
    """Measure the set of sizes once for each pair."""
    return [_set(scale) for _ in range(scale.pairs)]


def _set(scale: Scale) -> list[tuple[Grown, Grown]]:
    """Return the memory that an upload and a download of each size added, at one bridge."""
    with bridge(scale.folder) as account, tempfile.TemporaryDirectory(dir=scale.folder) as place:
        small, large = os.path.join(place, "small"), os.path.join(place, "large")
        _make(small, _SMALL)
        file_hash = pymdc.unwrap(account.files.upload(small))["hash"]
        pymdc.unwrap(account.files.download(file_hash, to=small))
        delete_files(account)
        before = _resident(account.pid)
        grown = []
        for size in scale.memory:
            _make(large, size)
            up = _grown("uploaded", account, place, before)
            grown.append((up, _grown("downloaded", account, place, before)))
            delete_files(account)
        return grown


def _make(path: str, size: int) -> None:
    """Create a sparse file of *size* bytes."""
    with open(path, "wb") as file:
        file.truncate(size)


def _grown(name: str, account: Account, folder: str, before: float) -> Grown:
    """Return what the function *name* added to a fresh client, and to the bridge since *before*."""
    _resident(account.pid)  # resets the peak
    client = fresh(
        "pass",
        f"memory.{name}",
        endpoint=account.client.endpoint,
        bucket=account.bucket,
        private_key=account.key_pair.get_private_key(),
        folder=folder,
    )
    return {"client": client, "bridge": _peak(account.pid) - before}


def uploaded(endpoint: str, bucket: str, private_key: str, folder: str) -> float:
    """Send the small file, then the large one; return what the large one added."""
    with pymdc.Client(endpoint) as client:
        key_pair = pymdc.ECDSA(private_key=private_key)
        files = pymdc.api.Files(bucket, key_pair, client=client)

        def send(name: str) -> None:
            pymdc.unwrap(files.upload(os.path.join(folder, name)))

        return _added(send)


def downloaded(endpoint: str, bucket: str, private_key: str, folder: str) -> float:
    """Fetch the small file, then the large one; return what the large one added."""
    with pymdc.Client(endpoint) as client:
        key_pair = pymdc.ECDSA(private_key=private_key)
        files = pymdc.api.Files(bucket, key_pair, client=client)
        hashes = {entry["filename"]: entry["hash"] for entry in pymdc.unwrap(files.list())}

        def fetch(name: str) -> None:
            back = os.path.join(folder, "back")
            pymdc.unwrap(files.download(hashes[name], to=back))
            os.unlink(back)

        return _added(fetch)


def _added(transfer: Callable[[str], None]) -> float:
    """Return by how many MiB the large *transfer* raised the peak of this process."""
    transfer("small")
    before = _resident(os.getpid())
    transfer("large")
    return _peak(os.getpid()) - before


def _resident(pid: int) -> float:
    """Reset the peak of the process *pid*, and return its resident memory in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return _peak(pid)


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024
