"""How much memory a transfer takes, in the client and in the bridge.

Both are processes of their own, the client a fresh one for each transfer.
The figures are the peak of their resident memory (VmHWM) above what was resident after a
transfer of 1 MB; the files are sparse, on the disk.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from figures import Figures, Scale
from parts import bridge
from programs import fresh

import pymdc

WHAT = "extra memory, the largest file less the smallest"
_SMALL = 1_000_000  # bytes, of the transfer after which it is counted

Grown = dict[str, float]


def upload(scale: Scale) -> Figures:
    """Compare the memory of uploads."""
    return _figures([up for up, _ in _transfers(scale)], scale)


def download(scale: Scale) -> Figures:
    """Compare the memory of downloads."""
    return _figures([down for _, down in _transfers(scale)], scale)


def _figures(grown: list[Grown], scale: Scale) -> Figures:
    client = [each["client"] for each in grown]
    return Figures(
        client[-1] - client[0],
        "one run each",
        _several(client),
        f"bridge: {_several([each['bridge'] for each in grown])}",
    )


def _several(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values) + " MiB"


@cache
def _transfers(scale: Scale) -> list[tuple[Grown, Grown]]:
    """Return what an upload and a download of each size added, in MiB."""
    return [_transfer(scale.folder, size) for size in scale.memory]


def _transfer(folder: str, size: int) -> tuple[Grown, Grown]:
    with bridge(folder) as account, tempfile.TemporaryDirectory(dir=folder) as place:
        for name, length in (("small", _SMALL), ("large", size)):
            with open(os.path.join(place, name), "wb") as file:
                file.truncate(length)
        given = {
            "endpoint": account.client.endpoint,
            "bucket": account.bucket,
            "private_key": account.key_pair.get_private_key(),
            "bridge": account.pid,
            "folder": place,
        }
        up = fresh("pass", "memory.uploaded", **given)
        return up, fresh("pass", "memory.downloaded", **given)


def uploaded(endpoint: str, bucket: str, private_key: str, bridge: int, folder: str) -> Grown:
    """Send the small file, then the large one; return what the large one added."""
    with pymdc.Client(endpoint) as client:
        key_pair = pymdc.ECDSA(private_key=private_key)
        files = pymdc.api.Files(bucket, key_pair, client=client)

        def send(name: str) -> None:
            pymdc.unwrap(files.upload(os.path.join(folder, name)))

        return _grown(send, bridge)


def downloaded(endpoint: str, bucket: str, private_key: str, bridge: int, folder: str) -> Grown:
    """Fetch the small file, then the large one; return what the large one added."""
    with pymdc.Client(endpoint) as client:
        key_pair = pymdc.ECDSA(private_key=private_key)
        files = pymdc.api.Files(bucket, key_pair, client=client)
        hashes = {entry["filename"]: entry["hash"] for entry in pymdc.unwrap(files.list())}

        def fetch(name: str) -> None:
            back = os.path.join(folder, "back")
            pymdc.unwrap(files.download(hashes[name], to=back))

        return _grown(fetch, bridge)


def _grown(transfer: Callable[[str], None], bridge: int) -> Grown:
    transfer("small")
    pids = {"client": os.getpid(), "bridge": bridge}
    before = {name: _resident(pid) for name, pid in pids.items()}
    transfer("large")
    return {name: _status(pid, "VmHWM") - before[name] for name, pid in pids.items()}


def _resident(pid: int) -> float:
    """Return what is resident in the process *pid*, and let its peak begin there, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024
