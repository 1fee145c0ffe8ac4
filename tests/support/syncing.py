"""Runs of ``pymdc sync`` that a test stops, or lets others overtake, at each of their requests."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

from faulty_proxy import length
from processes import ROOT, SUPPORT
from servers import RawServer, read_request

import pymdc
from pymdc.api import Files
from pymdc.bridge import Bridge

CHANGES = ("PUT", "DELETE", "PATCH")
OLD = 1_500_000_000  # an mtime
# What happens at a request: the second argument is "before" or "after" the bridge has done it.
Hook = Callable[[int, str], object]


def write(folder: Path, files: dict[str, str]) -> None:
    """Write *files*, which get an mtime of long ago."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (OLD, OLD))


def content(folder: Path) -> dict[str, str]:
    """Return the texts of the files in *folder*, by their paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def new_bucket() -> Files:
    """Make a bucket of the account whose key and bridge are in the environment; give its files."""
    key_pair = pymdc.ECDSA(private_key=os.environ["PYMDC_PRIVATE_KEY"])
    made = pymdc.api.Buckets(key_pair).create("b", 1, 1, [])["id"]
    files: Files = pymdc.api.Bucket(made, key_pair).files
    return files


class SteppingProxy(RawServer):
    """Forwards requests to *bridge*; calls *hook* before and after each of the *watched* methods.

    The first argument of *hook* is the number of such requests before. ``changes`` are the
    requests, each with its method and the file name or the hash.
    """

    def __init__(self, bridge: Bridge, hook: Hook, watched: tuple[str, ...] = CHANGES) -> None:
        self._port = int(bridge.endpoint.rpartition(":")[2])
        self._hook = hook
        self._watched = tuple(f"{method} ".encode() for method in watched)
        self._lock = threading.Lock()
        self.changes: list[str] = []
        super().__init__(self._relay)

    def __enter__(self) -> SteppingProxy:
        return self

    def _relay(self, connection: socket.socket) -> None:
        while True:
            head, body = read_request(connection)
            if not head or len(body) < length(head):
                return
            if b"\r\nupgrade: websocket" in head.lower():
                self._join(connection, head)
                return
            if not head.startswith(self._watched):
                connection.sendall(self._forward(head, body))
                continue
            with self._lock:
                number = len(self.changes)
                self.changes.append(_shown(head, body))
                self._hook(number, "before")
                answer = self._forward(head, body)
                self._hook(number, "after")
            connection.sendall(answer)

    def _join(self, connection: socket.socket, head: bytes) -> None:
        """Copy what either side sends to the other: the channel of a download."""
        with socket.create_connection(("127.0.0.1", self._port)) as upstream:
            upstream.sendall(head + b"\r\n\r\n")
            ends = {connection: upstream, upstream: connection}
            while True:
                for end in select.select([*ends], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def _forward(self, head: bytes, body: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port)) as upstream:
            upstream.sendall(head + b"\r\n\r\n" + body)
            return b"\r\n\r\n".join(read_request(upstream))


def _shown(head: bytes, body: bytes) -> str:
    method, path, _ = head.decode().split(" ", 2)
    name = re.search(rb'filename="([^"]*)"', body)
    return f"{method} {name[1].decode() if name else path.partition('?')[0].rpartition('/')[2]}"


# One process imports everything, and forks for each run: its child is a whole program.
_PROGRAM = """
import os, sys
from pymdc._cli.program import run, import_module
import_module("pymdc._cli.verbs.sync")
for line in sys.stdin:
    endpoint, *arguments = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        os.environ["PYMDC_ENDPOINT"] = endpoint
        code = run(arguments)
        sys.stdout.flush()
        os._exit(code)
    print("pid", child, flush=True)
    print("end", os.waitpid(child, 0)[1], flush=True)
"""


class Forks:
    """Runs the command line in processes that cost little."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process = process
        self._errors = errors
        self._pid: int | None = None
        self._known = threading.Event()
        self.printed: list[str] = []

    def run(self, endpoint: str, *arguments: str | Path) -> int:
        """Run a verb; return its exit code, or the number of the signal that ended it, negated."""
        assert self._process.stdin
        assert self._process.stdout
        self._known.clear()
        self.printed = []
        self._process.stdin.write("\t".join([endpoint, *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "pid":
                self._pid = int(rest)
                self._known.set()
            elif kind == "end":
                return os.waitstatus_to_exitcode(int(rest))
            else:
                self.printed.append(line)
        raise AssertionError(self._errors.read_text())

    def kill(self) -> None:
        """Kill the process that runs the verb."""
        self._known.wait()
        assert self._pid
        os.kill(self._pid, signal.SIGKILL)


@contextmanager
def forks(errors: Path) -> Iterator[Forks]:
    """Start the process that forks; what it prints to stderr is in the file *errors*."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"}
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _PROGRAM],
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        ) as process,
    ):
        yield Forks(process, errors)
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
