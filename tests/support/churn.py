"""Uploads and deletions that go on all the time, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from processes import MINUTE, SUPPORT

from pymdc.bridge import Bridge

LOAD = """
import hashlib, json, random, sys, threading
sys.path.insert(0, sys.argv[1])
from plain_client import User
from pymdc.bridge import Bridge

bridge = Bridge()
bridge.endpoint = sys.argv[2]
lock = threading.Lock()

def tell(*words):
    with lock:
        print(*words, flush=True)

def work(number):
    user, bucket = User(bridge, "alice", known=True), sys.argv[3]
    user.nonces = iter(range(number * 10**9, 10**12))
    chance, mine = random.Random(number), []
    while True:
        content = chance.randbytes(2500)
        name = user.upload(bucket, content).json["hash"]
        tell("stored", name, hashlib.sha256(content).hexdigest())
        mine.append(name)
        if len(mine) > 10:
            name = mine.pop(chance.randrange(len(mine)))
            tell("deleting", name)
            assert user.ask("DELETE", f"/buckets/{bucket}/files/{name}").status == 204
            tell("deleted", name)

for number in range(1, 4):
    threading.Thread(target=work, args=[number], daemon=True).start()
sys.stdin.read()
"""


class Load:
    """A process that uploads and deletes files all the time; what it told of each file."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._more = threading.Condition()
        self._lines: list[list[str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def told(self) -> dict[str, list[str]]:
        """Return the last word on each file: stored and its SHA-256, deleting, or deleted."""
        with self._more:
            return {name: [word, *rest] for word, name, *rest in self._lines}

    def wait(self, number: int) -> None:
        """Wait for *number* lines more."""
        with self._more:
            enough = len(self._lines) + number
            assert self._more.wait_for(lambda: len(self._lines) >= enough, MINUTE)

    def close(self) -> None:
        self._process.kill()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.endswith("\n"):
                with self._more:
                    self._lines.append(line.split())
                    self._more.notify()


@contextmanager
def load(bridge: Bridge, bucket: str) -> Iterator[Load]:
    command = [sys.executable, "-c", LOAD, str(SUPPORT), bridge.endpoint, bucket]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        with closing(Load(process)) as running:
            yield running
