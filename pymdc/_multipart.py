"""A file as a streamed multipart body of known length."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pymdc._hashes import FileHash
from pymdc.exceptions import IntegrityError

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_BLOCK = 256 * 1024


class Unreadable(Exception):
    """The file could not be read to its end; the cause says why.

    It is not an OSError, so that the transport does not take it for one of the connection.
    """


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[FileBody]:
    """Give the body for *source*: a path, or an open binary file from its position on."""
    if isinstance(source, str | bytes | os.PathLike):
        name = os.fsdecode(source)
        with open(name, "rb") as file:
            yield FileBody(file, os.path.basename(name))
    else:
        name = getattr(source, "name", "")
        named = isinstance(name, str | bytes)
        yield FileBody(source, os.path.basename(os.fsdecode(name)) if named else "")


class FileBody:
    """The rest of *file* as the one part of a multipart form, read while it is sent.

    ``size`` is the file's number of bytes, ``length`` the body's; ``hash`` names what was read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._start = self._seek(0, os.SEEK_CUR)
        self.size = self._seek(0, os.SEEK_END) - self._start
        self.hash = FileHash()
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

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._blocks()
        yield self._tail

    def _blocks(self) -> Iterator[bytes]:
        self.hash = FileHash()
        left = self.size
        try:
            self._seek(self._start)
            while left:
                block = self._file.read(min(_BLOCK, left))
                if not block:
                    raise IntegrityError(
                        f"the file ended {left} bytes early: it had {self.size} when it was opened"
                    )
                left -= len(block)
                self.hash.update(block)
                yield block
        except (OSError, ValueError) as error:
            raise Unreadable from error

    def _seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, AttributeError) as error:
            raise io.UnsupportedOperation(
                f"the file cannot be rewound ({error}); expected one that is open and can seek"
            ) from error


def checked(source: object) -> Path | BinaryIO:
    """Return *source* if it is a path or a binary file; TypeError when it is neither."""
    if isinstance(source, io.TextIOBase):
        raise TypeError("the file is open as text; expected a path or a file opened with 'rb'")
    if isinstance(source, str | bytes | os.PathLike) or hasattr(source, "read"):
        return source  # type: ignore[return-value]  # what has read() is taken for a binary file
    raise TypeError(f"the file is {type(source).__name__}; expected a path or an open binary file")


def _quoted(name: str) -> str:
    return re.sub(r"[\r\n]", " ", re.sub(r'(["\\])', r"\\\1", name))


_UNKNOWN_TYPE = "application/octet-stream"
