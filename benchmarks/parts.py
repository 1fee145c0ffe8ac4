"""An account at a bridge, and files, for measuring transfers."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import IO
from urllib.parse import urlsplit

from figures import MIB
from programs import environment, running

import pymdc

SHM = "/dev/shm"  # files that are sent or fetched are in memory, so that no disk is measured


@dataclass(frozen=True)
class Account:
    """A user of our bridge, with one bucket; *pid* is the process of the bridge."""

    client: pymdc.Client
    key_pair: pymdc.ECDSA
    bucket: str
    pid: int
    user: pymdc.api.Users

    @property
    def files(self) -> pymdc.api.Files:
        """The files of the bucket."""
        return pymdc.api.Files(self.bucket, self.key_pair, client=self.client)


@contextmanager
def bridge(folder: str, source: str | None = None) -> Iterator[Account]:
    """Yield an account at a bridge in its own process, with its data on the disk of *folder*.

    *source* is the folder of another pymdc.
    """
    with bridge_process(folder, environment(source)) as (endpoint, process):
        with pymdc.Client(endpoint) as client:
            yield new_account(client, process)


@contextmanager
def bridge_process(
    folder: str, variables: dict[str, str]
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the endpoint of a bridge in its own process, and the process."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="pymdc-benchmark-") as data:
        command = [sys.executable, "-m", "pymdc.bridge", "--port", "0", "--data", data]
        with open(os.path.join(data, "log"), "w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=data, env=variables
            )
            with running(process):
                assert process.stdout
                yield _endpoint(process.stdout, log), process


def _endpoint(output: IO[str], log: IO[str]) -> str:
    line = output.readline()
    if not line:
        log.seek(0)
        raise RuntimeError((log.read().splitlines() or ["the bridge did not start"])[-1])
    return line.split()[-1].rstrip("/")


def new_account(client: pymdc.Client, process: subprocess.Popen[str]) -> Account:
    """Register a user at the bridge in *process*, and create a bucket."""
    assert process.stdout
    user, key_pair = pymdc.api.Users("you@example.com", client=client), pymdc.ECDSA()
    pymdc.unwrap(user.register())
    pymdc.unwrap(user.activate(process.stdout.readline().strip()[-64:]))
    pymdc.unwrap(pymdc.api.Keys(user).create(key_pair))
    bucket = pymdc.api.Buckets(key_pair, client=client).create("benchmark", 1000, 1000, [])
    return Account(client, key_pair, pymdc.unwrap(bucket)["id"], process.pid, user)


def delete_files(account: Account) -> None:
    """Delete all files of the bucket."""
    for entry in pymdc.unwrap(account.files.list()):
        pymdc.unwrap(account.files.delete(entry["hash"]))


@contextmanager
def random_file(size: int) -> Iterator[str]:
    """Yield the path of a file of *size* random bytes, in memory."""
    with tempfile.TemporaryDirectory(dir=SHM, prefix="pymdc-benchmark-") as folder:
        path = os.path.join(folder, "file")
        with open(path, "wb") as file:
            for _ in range(0, size, MIB):
                file.write(secrets.token_bytes(MIB))
        yield path


def renew(path: str) -> None:
    """Change each MiB of the file at *path*, because a bridge stores equal shards only once."""
    with open(path, "r+b") as file:
        for start in range(0, os.path.getsize(path), MIB):
            file.seek(start)
            file.write(secrets.token_bytes(16))


def sha256(path: str) -> bytes:
    """Return the SHA-256 of the file at *path*, mapped into memory without a copy."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return hashlib.sha256(content).digest()


def address(endpoint: str) -> tuple[str, int]:
    """Return the host and port of *endpoint*."""
    parts = urlsplit(endpoint)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port
