"""How much memory a transfer takes, in the client and in the bridge.

    python benchmarks/memory.py [MB]

Both are processes of their own; the figures are the growth of their peak resident memory
(VmHWM of /proc, so Linux alone) over that after a transfer of 1 MB.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pymdc


def peak(pid: int | str) -> float:
    """Return the peak resident memory of the process *pid* so far, in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def transfer(files: pymdc.api.Files, folder: str, size: int) -> None:
    """Send a sparse file of *size* bytes up and fetch it back."""
    path = os.path.join(folder, "file")
    with open(path, "wb") as file:
        file.truncate(size)
    entry = files.upload(path)
    back = files.download(entry["hash"], to=os.path.join(folder, "back"))
    assert back["size"] == size


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pymdc.bridge", "--port", "0", "--data", folder + "/data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bridge:
            assert bridge.stdout
            with pymdc.Client(bridge.stdout.readline().split()[-1]) as client:
                user = pymdc.api.Users("you@example.com", client=client)
                user.register()
                user.activate(bridge.stdout.readline().strip()[-64:])
                keys = pymdc.api.Keys(user)
                keys.create()
                made = pymdc.api.Buckets(keys.key_pairs[0], client=client).create("b", 99, 99, [])
                files = pymdc.api.Files(made["id"], keys.key_pairs[0], client=client)
                transfer(files, folder, 1_000_000)
                before = peak("self"), peak(bridge.pid)
                transfer(files, folder, size * 1_000_000)
                after = peak("self"), peak(bridge.pid)
            bridge.terminate()
    for name, low, high in zip(("client", "bridge"), before, after, strict=True):
        print(f"{name}: {low:.1f} MB before, {high:.1f} MB after {size} MB: {high - low:.1f} more")


if __name__ == "__main__":
    main()
