"""Where a download is written: a part file beside its target, or a file that the caller opened."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO
from urllib.parse import quote

from pymdc._hashes import Block

try:
    import fcntl
except ImportError:  # where there is none, two downloads of one file must not meet
    fcntl = None  # type: ignore[assignment]

Target = str | os.PathLike[str] | os.PathLike[bytes] | bytes

_BLOCK = 1024 * 1024


class Stream:
    """A file that the caller opened, which takes the bytes in order, and is left open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        name = getattr(file, "name", None)
        self.path = name if isinstance(name, str) else None

    def write(self, block: Block) -> None:
        """Write *block* where the file stands."""
        with _named(self.path):
            self._file.write(block)


class Part:
    """A file beside the one at *path*, which takes its place when it is whole."""

    def __init__(self, file: io.FileIO, path: str, name: str) -> None:
        self._file = file
        self.path = path
        self._name = name
        self._buffer = memoryview(bytearray(_BLOCK))

    def write(self, block: Block, place: int) -> None:
        """Write *block* at *place*, whatever stands before."""
        left = memoryview(block)
        with _named(self.path):
            self._file.seek(place)
            while left:
                left = left[self._file.write(left) :]

    def read(self, place: int, size: int) -> Iterator[memoryview]:
        """Give the *size* bytes at *place*, in blocks that are good until the next one."""
        self._file.seek(place)
        while size and (count := self._file.readinto(self._buffer[: min(size, _BLOCK)])):
            yield self._buffer[:count]
            size -= count

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Cut off what stands after *size* bytes."""
        if len(self) > size:
            self._file.truncate(size)

    def leave(self) -> None:
        """Remove the file, unless there is something in it that another try can use."""
        with suppress(OSError):
            if fcntl is None or not len(self):
                os.unlink(self._name)


def writable(to: object) -> Target | BinaryIO:
    """Return *to* if it is a path or a binary file; TypeError when it is neither."""
    if isinstance(to, io.TextIOBase):
        raise TypeError("the target is open as text; expected a path or a file opened with 'wb'")
    if isinstance(to, str | bytes | os.PathLike) or hasattr(to, "write"):
        return to  # type: ignore[return-value]  # what has write() is taken for a binary file
    raise TypeError(f"the target is {type(to).__name__}; expected a path or an open binary file")


@contextmanager
def target(to: Target | BinaryIO, file_hash: str) -> Iterator[Stream | Part]:
    """Give what to write to: when all went well a path holds the whole file, else nothing new.

    An open file is written as it is, and left open.
    """
    if not isinstance(to, str | bytes | os.PathLike):
        yield Stream(to)
        return
    path = os.path.realpath(os.fsdecode(to))
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the path of the file to write")
    with _named(path):
        name, file = _beside(path, file_hash)
    with file:
        part = Part(file, os.fsdecode(to), name)
        try:
            with suppress(OSError):
                os.chmod(name, os.stat(path).st_mode & 0o777)
            yield part
            if fcntl is None:
                file.close()  # where a file that is open can't be moved
            os.replace(name, path)
        except BaseException:
            part.leave()
            raise


def _beside(path: str, file_hash: str) -> tuple[str, io.FileIO]:
    """Return the part file for *path* with its name, which *file_hash* tells.

    When somebody else writes to that one, or owns it, it is another, which nobody finds again.
    """
    folder = os.path.dirname(path)
    name = os.path.join(folder, f".pymdc-{quote(file_hash, safe='')}.part")
    file = _claimed(name)
    if file is None:
        name = os.path.join(folder, f".pymdc-{secrets.token_hex(8)}.part")
        file = io.FileIO(name, "x+")
    return name, file


def _claimed(name: str) -> io.FileIO | None:
    """Return the file *name*, made when missing, for this download alone; None if it can't be."""
    if fcntl is None:
        return None
    while True:
        try:
            file = io.FileIO(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
        except PermissionError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid():
                raise PermissionError
        except OSError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(status, os.stat(name)):
                return file
        file.close()  # it was moved to its target meanwhile


@contextmanager
def _named(path: str | None) -> Iterator[None]:
    """Let an error of the system tell *path*, which the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a file that is not open for writing
            raise
        raise OSError(error.errno, error.strerror, path) from error
