"""How long other users wait while somebody attacks a bridge, and what the bridge holds meanwhile.

Run it as ``PYTHONPATH=CLONE:CLONE/tests/support python tests/fuzz/attacks.py [ROW...]``, on Linux.
Each row is one attack on a fresh bridge, of which *others* send signed GETs one after the other.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from plain_client import basic, head
from processes import bridge_process
from websockets.frames import Frame, Opcode

import pymdc
from pymdc._http.auth import Signature
from pymdc._http.request import build_request, resource

FILES = 20_000
MB = 10**6


class Target(NamedTuple):
    """A bridge under attack; *requests* are signed GETs of a small bucket."""

    host: str
    large_bucket: str
    sign: Callable[[str, str], tuple[str, dict[str, str]]]


class Watch:
    """Keeps the largest memory and number of threads of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.first = self.memory = self._read()[0]
        self.threads = 0

    def look(self) -> None:
        memory, threads = self._read()
        self.memory, self.threads = max(self.memory, memory), max(self.threads, threads)

    def _read(self) -> tuple[float, int]:
        text = Path(f"/proc/{self._pid}/status").read_text()
        memory = re.search(r"VmRSS:\s*(\d+)", text)
        threads = re.search(r"Threads:\s*(\d+)", text)
        assert memory
        assert threads
        return int(memory[1]) / 1024, int(threads[1])


def account(endpoint: str, data: Path) -> tuple[Callable[..., Any], str]:
    """Register a user; return a function that signs for it, and a bucket."""
    key_pair = pymdc.ECDSA()
    with pymdc.Client(endpoint) as client:
        user = pymdc.api.Users("attack@example.com", "pass", client=client)
        pymdc.unwrap(user.register())
        with closing(sqlite3.connect(data / "metadata.sqlite")) as database:
            [token] = database.execute("SELECT activation FROM users").fetchone()
        pymdc.unwrap(user.activate(token))
        pymdc.unwrap(pymdc.api.Keys(user).create(key_pair))
        bucket = pymdc.unwrap(pymdc.api.Buckets(key_pair, client=client).create("b", 10, 30, []))

    def sign(method: str, path: str) -> tuple[str, dict[str, str]]:
        request = Signature(key_pair).sign(build_request(method, resource(*path.split("/"))))
        return request.target, dict(request.headers)

    return sign, bucket["id"]


def fill(data: Path, bucket: str) -> None:
    """Put files into *bucket*, as if they had been uploaded."""
    (data / "shards").mkdir(exist_ok=True)
    with closing(sqlite3.connect(data / "metadata.sqlite")) as database, database:
        for number in range(1, FILES + 1):
            name = hashlib.sha256(str(number).encode()).hexdigest()
            (data / "shards" / name[:32]).write_bytes(bytes(10))
            file = (number, bucket, name[:40], f"holiday {number}.jpg", "image/jpeg", 10)
            database.execute(
                "INSERT INTO files (number, bucket, hash, filename, mimetype, size)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                file,
            )
            database.execute("INSERT INTO shards VALUES (?, ?, 10)", (name[:40], name[:32]))
            database.execute("INSERT INTO file_shards VALUES (?, 0, ?)", (number, name[:40]))


@contextmanager
def bridge(*, files: bool = False, limit: int = 0) -> Iterator[tuple[Target, Any, str]]:
    wrapper = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"] if limit else []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder)
        with bridge_process(data) as (endpoint, process):
            sign, bucket = account(endpoint, data)
        if files:
            fill(data, bucket)
        log = stack.enter_context(open(data / "log", "w+"))
        with bridge_process(data, wrapper=[*wrapper], stderr=log) as (endpoint, process):
            yield Target(endpoint.removeprefix("http://"), bucket, sign), process, folder


def others(
    target: Target, signed: list[tuple[str, dict[str, str]]], answers: Any, stop: Any
) -> None:
    """Send signed GETs until *stop* is set; put the seconds of each into *answers*."""
    seconds = []
    connection = HTTPConnection(target.host, timeout=60)
    for path, headers in signed:
        if stop.is_set():
            break
        began = time.perf_counter()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
        except (OSError, HTTPException):
            connection.close()
        seconds.append(time.perf_counter() - began)
        time.sleep(0.002)
    answers.put(seconds)


def measured(
    target: Target, process: Any, attack: Callable[[Target, threading.Event], None], seconds: float
) -> str:
    """Return the figures of others while *attack* runs, for at most *seconds*."""
    fork = multiprocessing.get_context("fork")
    answers, stop = fork.Queue(), fork.Event()
    signed = [target.sign("GET", "buckets") for _ in range(8000)]
    watch, over = Watch(process.pid), threading.Event()
    victim = fork.Process(target=others, args=[target, signed, answers, stop])
    victim.start()
    began = time.monotonic()

    def run() -> None:
        attack(target, over)
        over.set()

    attacker = fork.Process(target=run)
    attacker.start()
    while attacker.is_alive() and time.monotonic() < began + seconds:
        watch.look()
        time.sleep(0.05)
    lasted = time.monotonic() - began
    stop.set()
    times = sorted(answers.get())
    victim.join()
    attacker.terminate()
    return (
        f"median {1000 * statistics.median(times):.1f} ms, worst {1000 * times[-1]:.0f} ms"
        f" of {len(times)} in {lasted:.1f} s; {watch.threads} threads;"
        f" {watch.first:.0f} MiB + {watch.memory - watch.first:.0f}"
    )


def together(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask(target: Target, method: str, path: str, body: Any = None, headers: Any = None) -> int:
    with closing(HTTPConnection(target.host, timeout=120)) as connection:
        with suppress(OSError, HTTPException):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            while response.read(65536):
                pass
            return response.status
    return 0


def nested(target: Target, _over: threading.Event) -> None:
    body = (b'{"a":' + 490_000 * b"[" + 490_000 * b"]" + b"}").ljust(MB)

    def send(_number: int) -> None:
        while True:
            ask(target, "POST", "/users", body)

    together(8, send)


def flat(target: Target, _over: threading.Event) -> None:
    body = json.dumps({"a": [[{"b": 1}]] * 80_000}).encode()[:MB]

    def send(_number: int) -> None:
        while True:
            ask(target, "POST", "/users", body)

    together(8, send)


def logins(target: Target, _over: threading.Event) -> None:
    def send(number: int) -> None:
        ask(target, "GET", "/keys", None, basic(f"attack{number}@example.com", "0" * 64))

    together(300, send)


def lists(target: Target, _over: threading.Event) -> None:
    signed = [target.sign("GET", f"buckets/{target.large_bucket}/files") for _ in range(800)]

    def send(number: int) -> None:
        for path, headers in signed[100 * number : 100 * number + 100]:
            assert ask(target, "GET", path, None, headers) == 200

    together(8, send)


def removal(target: Target, _over: threading.Event) -> None:
    path, headers = target.sign("DELETE", f"buckets/{target.large_bucket}")
    began = time.monotonic()
    status = ask(target, "DELETE", path, None, headers)
    print(f"removed with {status} in {time.monotonic() - began:.1f} s")


def pings(target: Target, _over: threading.Event) -> None:
    host, _, port = target.host.partition(":")
    fields = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    flood = 100 * Frame(Opcode.PING, 125 * b"x").serialize(mask=True)
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), 5) as wire:
            wire.sendall(head("GET /", *fields, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
            wire.recv(1000)
            while True:
                wire.sendall(flood)


def requests(target: Target, _over: threading.Event) -> None:
    host, _, port = target.host.partition(":")
    flood = 5000 * head("GET /")
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), 5) as wire:
            while True:
                wire.sendall(flood)


def idle(target: Target, over: threading.Event) -> None:
    host, _, port = target.host.partition(":")
    with ExitStack() as stack:
        for _ in range(300):
            with suppress(OSError):
                stack.enter_context(socket.create_connection((host, int(port)), 5))
        time.sleep(6)


class Row(NamedTuple):
    """A row of the table; *seconds* is how long the attack may last."""

    attack: Callable[[Target, threading.Event], None]
    seconds: float = 60
    files: bool = False
    limit: int = 0


ROWS = {
    "nothing": Row(lambda _target, _over: time.sleep(5)),
    "nested": Row(nested, 8),
    "flat": Row(flat, 8),
    "logins": Row(logins),
    "lists": Row(lists, 20, files=True),
    "removal": Row(removal, files=True),
    "pings": Row(pings),
    "requests": Row(requests, 15),
    "idle": Row(idle, limit=256),
}


def main() -> None:
    print(f"the bridge of {Path(pymdc.__file__).parents[1]}, {os.getloadavg()[0]:.1f} load")
    for name in sys.argv[1:] or ROWS:
        row = ROWS[name]
        with bridge(files=row.files, limit=row.limit) as (target, process, folder):
            figures = measured(target, process, row.attack, row.seconds)
            size = os.stat(Path(folder) / "log").st_size
        print(f"{name:9}{figures}; log {size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
