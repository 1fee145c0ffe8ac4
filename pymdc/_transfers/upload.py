"""The body of an upload: a file as a multipart form of known length, read while it is sent."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from pymdc._calls.background import BackgroundTask
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import user_code
from pymdc._calls.descriptors import when_there_is_one
from pymdc._crypto.file_hash import FileHash
from pymdc._transfers.progress import Progress
from pymdc._transfers.source import READ_INTO, Source
from pymdc.exceptions import IntegrityError

_BLOCK = 1024 * 1024
_PIECE = 256 * 1024  # bytes; after each piece, progress may be reported
_UNKNOWN_TYPE = "application/octet-stream"
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})


@contextmanager
def body_of(
    source: Source,
    scope: CancelScope,
    progress: Progress,
    hasher: BackgroundTask | None,
    *,
    field: str = "file",
    fields: Mapping[str, str] = _NO_FIELDS,
) -> Iterator[FileBody]:
    """Yield the body for *source*: the file is *field* of the form, after the other *fields*.

    A file that the caller opened gets its position back, unless the body is ``stored`` at the end.
    """
    with source.opened(scope) as file:
        # The first call reads a file of the system, which needs a descriptor.
        guess = partial(mimetypes.guess_type, source.name)
        kind = when_there_is_one(guess, scope.sleep, scope.remaining())[0] or _UNKNOWN_TYPE
        body = FileBody(file, _Form(source.name, kind, field, fields), progress, hasher)
        try:
            yield body
        finally:
            if hasher is not None:
                hasher.wait()
            if not body.stored:
                with suppress(OSError):  # this error would replace the one that ended the upload
                    body.rewind()


class FileBody:
    """The rest of *file* as the last part of a multipart form, read while it is sent.

    ``size`` is the number of bytes of the file, and ``headers`` are those of the body; ``hash`` is
    computed by *hasher* from what was read, and is None without a *hasher*.
    """

    stored = False

    def __init__(
        self, file: Any, form: _Form, progress: Progress, hasher: BackgroundTask | None
    ) -> None:
        self._file = file
        self._progress = progress
        self._hasher = hasher
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
        self._head = form.head(boundary)
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + self.size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._head
        # An error of the file must not be taken for one of the connection.
        with user_code():
            yield from self._blocks()
        yield self._tail

    def rewind(self) -> None:
        """Go back to the first position of the file."""
        self._seek(self._start)

    def _blocks(self) -> Iterator[memoryview]:
        self.hash = FileHash() if self._hasher else None
        self.rewind()
        read = sent = 0
        for block in _read(self._file):
            read += len(block)
            if read > self.size:
                raise IntegrityError(f"the file grew while it was sent: it had {self.size} bytes")
            if self._hasher and self.hash is not None:
                self._hasher.do(partial(self.hash.update, block))
            for offset in range(0, len(block), _PIECE):
                yield (piece := block[offset : offset + _PIECE])
                sent += len(piece)
                self._progress.report(sent)
        if sent < self.size:
            raise IntegrityError(
                f"the file shrank while it was sent: it had {self.size} bytes, and ended at {sent}"
            )
        if self._hasher:
            self._hasher.wait()

    def _seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            position = self._file.seek(offset, whence)
            return int(self._file.tell() if position is None else position)  # some return None
        except (OSError, TypeError, ValueError, AttributeError) as error:
            raise io.UnsupportedOperation(
                f"the file cannot be rewound ({error}); expected one that is open and can seek"
            ) from error


def _read(file: Any) -> Iterator[memoryview]:
    """Yield the rest of *file* in blocks; each is valid until the next but one is read."""
    if type(file) not in READ_INTO:  # other types may provide read() alone
        while block := file.read(_BLOCK):
            yield memoryview(block)
        return
    buffers = [memoryview(bytearray(_BLOCK)) for _ in range(2)]
    while count := file.readinto(buffers[0]):
        yield buffers[0][:count]
        buffers.reverse()


class _Form(NamedTuple):
    """A form with the file *name*, of MIME type *kind*, as *field*, after the other *fields*."""

    name: str
    kind: str
    field: str
    fields: Mapping[str, str]

    def head(self, boundary: str) -> bytes:
        """Return the other parts, and the head of the part with the file."""
        disposition = f"--{boundary}\r\nContent-Disposition: form-data; name="
        parts = [
            f'{disposition}"{_quoted(field)}"\r\n\r\n{value}\r\n'
            for field, value in self.fields.items()
        ]
        parts += (
            f'{disposition}"{_quoted(self.field)}"; {_file_name(self.name)}\r\n',
            f"Content-Type: {self.kind}\r\n\r\n",
        )
        return "".join(parts).encode("utf-8", "surrogateescape")


def _file_name(name: str) -> str:
    """Return the parameter for *name*, and a second, encoded one if *name* has line breaks."""
    plain = f'filename="{_quoted(name)}"'
    if not re.search(r"[\r\n]", name):
        return plain
    encoded = quote(name, safe="", errors="surrogateescape")
    return f"{plain}; filename*=UTF-8''{encoded}"  # RFC 5987


def _quoted(name: str) -> str:
    return re.sub(r"[\r\n]", " ", re.sub(r'(["\\])', r"\\\1", name))
