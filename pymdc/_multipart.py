"""A file as a streamed multipart body of known length."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from pymdc._aside import Aside
from pymdc._foreign import foreign
from pymdc._hashes import FileHash
from pymdc._progress import Progress
from pymdc.exceptions import IntegrityError

Source = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryIO

_BLOCK = 1024 * 1024
_PIECE = 256 * 1024  # bytes, after each of which progress may be told


@contextmanager
def opened(source: Source, progress: Progress, aside: Aside | None) -> Iterator[FileBody]:
    """Give the body for *source*: a path, bytes, or an open binary file from its position on.

    Such a file is left open, and where it stood, unless the body is ``stored`` at the end.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield FileBody(_Memory(source), "", progress, aside)
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        with open(name, "rb", buffering=0, opener=_not_waiting) as file:
            yield FileBody(file, os.path.basename(name), progress, aside)
    else:
        name = getattr(source, "name", "")
        named = isinstance(name, str | bytes)
        body = FileBody(
            source, os.path.basename(os.fsdecode(name)) if named else "", progress, aside
        )
        try:
            yield body
        finally:
            if not body.stored:
                with suppress(OSError):  # another one ended the upload
                    body.rewind()


class FileBody:
    """The rest of *file* as the one part of a multipart form, read while it is sent.

    ``size`` is the file's number of bytes, ``length`` the body's; ``hash`` names what was read,
    which is hashed *aside*, and is None where that is.
    """

    stored = False

    def __init__(self, file: Any, name: str, progress: Progress, aside: Aside | None) -> None:
        self._file = file
        self._progress = progress
        self._aside = aside
        self._start = self._seek(0, os.SEEK_CUR)
        self.size = self._seek(0, os.SEEK_END) - self._start
        self.rewind()
        if self.size < 0:
            raise io.UnsupportedOperation(
                f"the file stands at {self._start}, beyond its end; expected a place in the file"
            )
        progress.total = self.size
        self.hash: FileHash | None = None
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{_quoted(name)}"\r\n'
            f"Content-Type: {mimetypes.guess_type(name)[0] or _UNKNOWN_TYPE}\r\n\r\n"
        )
        self._head = head.encode("utf-8", "surrogateescape")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.length = len(self._head) + self.size + len(self._tail)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._head
        # What the file raises is none of the connection's errors, for which it would be taken.
        with foreign():
            yield from self._blocks()
        yield self._tail

    def rewind(self) -> None:
        """Go back to where the file stood at first."""
        self._seek(self._start)

    def _blocks(self) -> Iterator[memoryview]:
        self.hash = FileHash() if self._aside else None
        self.rewind()
        read = sent = 0
        for block in _read(self._file):
            read += len(block)
            if read > self.size:
                raise IntegrityError(f"the file grew while it was sent: it had {self.size} bytes")
            if self._aside and self.hash is not None:
                self._aside.do(partial(self.hash.update, block))
            for place in range(0, len(block), _PIECE):
                yield (piece := block[place : place + _PIECE])
                sent += len(piece)
                self._progress.tell(sent)
        if sent < self.size:
            raise IntegrityError(
                f"the file shrank while it was sent: it had {self.size} bytes, and ended at {sent}"
            )
        if self._aside:
            self._aside.wait()

    def _seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            place = self._file.seek(offset, whence)
            return int(self._file.tell() if place is None else place)  # some only go there
        except (OSError, TypeError, ValueError, AttributeError) as error:
            raise io.UnsupportedOperation(
                f"the file cannot be rewound ({error}); expected one that is open and can seek"
            ) from error


class _Memory:
    """Bytes as a file, which are not copied."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._place = 0

    def seek(self, offset: int, whence: int) -> int:
        """Stand *offset* bytes after the beginning, the place, or the end."""
        self._place = offset + (0, self._place, len(self._data))[whence]
        return self._place

    def read(self, size: int) -> memoryview:
        """Return the next *size* bytes, or those that are left."""
        block = self._data[self._place : self._place + size]
        self._place += len(block)
        return block


def _not_waiting(name: str, flags: int) -> int:
    # To open a pipe that nobody writes to would wait for ever; like this it cannot be rewound.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _read(file: Any) -> Iterator[memoryview]:
    """Give what is left of *file*, in blocks each of which is good until the next but one."""
    if type(file) is not io.FileIO:  # what others have made may count on read()
        while block := file.read(_BLOCK):
            yield memoryview(block)
        return
    buffers = [memoryview(bytearray(_BLOCK)) for _ in range(2)]
    while count := file.readinto(buffers[0]):
        yield buffers[0][:count]
        buffers.reverse()


def checked(source: object) -> Source:
    """Return *source* if it is a path, bytes or an open binary file; TypeError or ValueError."""
    expected = "expected a path, bytes or a file opened with 'rb'"
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"the file is open as text; {expected}")
    if isinstance(source, memoryview) and not source.c_contiguous:
        raise ValueError(f"the memory is not in one piece; {expected}")
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
        return source
    if not hasattr(source, "read"):
        raise TypeError(f"the file is {type(source).__name__}; {expected}")
    closed = isinstance(source, io.IOBase) and source.closed
    if closed or (isinstance(source, io.FileIO | io.BufferedWriter) and not source.readable()):
        raise ValueError(f"the file is not open for reading; {expected}")
    return source  # type: ignore[return-value]  # what has read() is taken for a binary file


def _quoted(name: str) -> str:
    return re.sub(r"[\r\n]", " ", re.sub(r'(["\\])', r"\\\1", name))


_UNKNOWN_TYPE = "application/octet-stream"
