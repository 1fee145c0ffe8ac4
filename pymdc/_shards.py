"""From pointers to a file: shards pulled, verified and written."""

from __future__ import annotations

import io
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
        told = f"{file_hash}: shard {number} of {len(pointers)}"
        _compare(told, shard, pointer["hash"], f" from {pointer['channel']}")
    _compare(f"{file_hash}: the file", whole, file_hash)
    return size


def _write(out: BinaryIO, block: bytes) -> None:
    try:
        out.write(block)
    except OSError as error:
        if error.errno is None:  # of a file that is not open for writing
            raise
        raise OSError(error.errno, error.strerror, getattr(out, "name", None)) from error


def _compare(what: str, found: FileHash, promised: str, source: str = "") -> None:
    if found.hexdigest() != promised:
        raise IntegrityError(
            f"{what} came with the hash {found.hexdigest()}, not {promised}{source};"
            " it is damaged there or on the way"
        )


def checked(pointers: Any, tried: str) -> Sequence[Mapping[str, str]]:
    """Return *pointers*, what *tried* was answered, if they are a list of them, or raise."""
    keys = ("hash", "token", "channel")
    if not isinstance(pointers, list) or not all(
        isinstance(pointer, dict) and all(isinstance(pointer.get(key), str) for key in keys)
        for pointer in pointers
    ):
        raise IntegrityError(
            f"{tried}: the answer is no list of pointers with hash, token and channel;"
            " is something else listening at the endpoint?"
        )
    return pointers


def _created(part: str, path: str) -> BinaryIO:
    """Return *part*, new, and with the permissions of the file at *path* if there is one."""
    try:
        file = open(part, "xb")  # noqa: SIM115  # the caller closes it
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    with suppress(OSError):
        os.chmod(part, os.stat(path).st_mode & 0o777)
    return file


def writable(to: object) -> Path | BinaryIO:
    """Return *to* if it is a path or a binary file; TypeError when it is neither."""
    if isinstance(to, io.TextIOBase):
        raise TypeError("the target is open as text; expected a path or a file opened with 'wb'")
    if isinstance(to, str | bytes | os.PathLike) or hasattr(to, "write"):
        return to  # type: ignore[return-value]  # what has write() is taken for a binary file
    raise TypeError(f"the target is {type(to).__name__}; expected a path or an open binary file")


@contextmanager
def target(to: Path | BinaryIO) -> Iterator[tuple[BinaryIO, str | None]]:
    """Give a file to write, and its path: when all went well it stands at *to*, else nowhere.

    An open file is written as it is, and left open.
    """
    if not isinstance(to, str | bytes | os.PathLike):
        name = getattr(to, "name", None)
        yield to, name if isinstance(name, str) else None
        return
    path = os.path.realpath(os.fsdecode(to))
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the path of the file to write")
    part = os.path.join(os.path.dirname(path), f".pymdc-{secrets.token_hex(8)}.part")
    try:
        with _created(part, path) as file:
            yield file, os.fsdecode(to)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
