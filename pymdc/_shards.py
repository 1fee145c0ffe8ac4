"""From pointers to a file: shards pulled, verified and written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from pymdc._hashes import FileHash
from pymdc._multipart import Path
from pymdc.exceptions import IntegrityError

Pull = Callable[[Mapping[str, str]], Iterable[bytes]]


def fetch(pointers: Sequence[Mapping[str, str]], file_hash: str, pull: Pull, out: BinaryIO) -> int:
    """Write the shards behind *pointers* to *out*, in order, and return the number of bytes.

    *pull* gives the blocks of one pointer's shard.
    Raises `IntegrityError` when a shard or the whole has another hash than it should.
    """
    whole, size = FileHash(), 0
    for number, pointer in enumerate(pointers, 1):
        shard = FileHash()
        for block in pull(pointer):
            shard.update(block)
            whole.update(block)
            size += len(block)
            _write(out, block)
        _compare(f"shard {number} of {len(pointers)}", shard, pointer["hash"])
    _compare("the file", whole, file_hash)
    return size


def _write(out: BinaryIO, block: bytes) -> None:
    try:
        out.write(block)
    except OSError as error:
        raise OSError(error.errno, error.strerror, getattr(out, "name", None)) from error


def _compare(what: str, found: FileHash, promised: str) -> None:
    if found.hexdigest() != promised:
        raise IntegrityError(f"{what} came with the hash {found.hexdigest()}, not {promised}")


def checked(pointers: Any) -> Sequence[Mapping[str, str]]:
    """Return *pointers* if they are the bridge's list; raise `IntegrityError` if not."""
    keys = ("hash", "token", "channel")
    if not isinstance(pointers, list) or not all(
        isinstance(pointer, dict) and all(isinstance(pointer.get(key), str) for key in keys)
        for pointer in pointers
    ):
        raise IntegrityError("the answer is no list of pointers with hash, token and channel")
    return pointers


@contextmanager
def target(to: Path | BinaryIO) -> Iterator[tuple[BinaryIO, str | None]]:
    """Give a file to write, and its path: when all went well it stands at *to*, else nowhere.

    An open file is written as it is, and left open.
    """
    if not isinstance(to, str | bytes | os.PathLike):
        name = getattr(to, "name", None)
        yield to, name if isinstance(name, str) else None
        return
    path = os.fsdecode(to)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the path of the file to write")
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            yield file, path
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
