"""A file as a streamed multipart body of known length."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pymdc._hashes import FileHash
from pymdc._progress import Progress
from pymdc.exceptions import IntegrityError

Source = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryIO

_BLOCK = 1024 * 1024


class Unsendable(Exception):
    """The body came to an end by what its cause says: the file, or who is told of the progress.

    It is not an OSError, so that the transport does not take it for one of the connection.
    """


@contextmanager
def opened(source: Source, progress: Progress, verify: bool) -> Iterator[FileBody]:
    """Give the body for *source*: a path, bytes, or an open binary file from its position on."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield FileBody(io.BytesIO(source), "", progress, verify)
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        with open(name, "rb", buffering=0) as file:
            yield FileBody(file, os.path.basename(name), progress, verify)
    else:
        name = getattr(source, "name", "")
        named = isinstance(name, str | bytes)
        base = os.path.basename(os.fsdecode(name)) if named else ""
        yield FileBody(source, base, progress, verify)


class FileBody:
    """The rest of *file* as the one part of a multipart form, read while it is sent.

    ``size`` is the file's number of bytes, ``length`` the body's; ``hash`` names what was read,
    and is None unless *verify*.
    """

    def __init__(self, file: Any, name: str, progress: Progress, verify: bool) -> None:
        self._file = file
        self._progress = progress
        self._verify = verify
        self._start = self._seek(0, os.SEEK_CUR)
        self.size = self._seek(0, os.SEEK_END) - self._start
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
        try:
            yield from self._blocks()
        except Exception as error:
            raise Unsendable from error
        yield self._tail

    def _blocks(self) -> Iterator[memoryview]:
        self.hash = FileHash() if self._verify else None
        self._seek(self._start)
        sent = 0
        for block in _read(self._file):
            sent += len(block)
            if sent > self.size:
                raise IntegrityError(f"the file grew while it was sent: it had {self.size} bytes")
            if self.hash is not None:
                self.hash.update(block)
            yield block
            self._progress.tell(sent)
        if sent < self.size:
            raise IntegrityError(
                f"the file shrank while it was sent: it had {self.size} bytes, and ended at {sent}"
            )

    def _seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return int(self._file.seek(offset, whence))
        except (OSError, ValueError, AttributeError) as error:
            raise io.UnsupportedOperation(
                f"the file cannot be rewound ({error}); expected one that is open and can seek"
            ) from error


def _read(file: Any) -> Iterator[memoryview]:
    """Give what is left of *file*, in blocks that are good until the next one."""
    if type(file) is not io.FileIO:  # what others have made may count on read()
        while block := file.read(_BLOCK):
            yield memoryview(block)
        return
    buffer = memoryview(bytearray(_BLOCK))
    while count := file.readinto(buffer):
        yield buffer[:count]


def checked(source: object) -> Source:
    """Return *source* if it is a path, bytes or a binary file; TypeError when it is neither."""
    if isinstance(source, io.TextIOBase):
        raise TypeError("the file is open as text; expected a path or a file opened with 'rb'")
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    if isinstance(source, kinds) or hasattr(source, "read"):
        return source  # type: ignore[return-value]  # what has read() is taken for a binary file
    raise TypeError(
        f"the file is {type(source).__name__}; expected a path, bytes or an open binary file"
    )


def _quoted(name: str) -> str:
    return re.sub(r"[\r\n]", " ", re.sub(r'(["\\])', r"\\\1", name))


_UNKNOWN_TYPE = "application/octet-stream"
