"""A file as a streamed multipart body of known length."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from pymdc._calls.background import BackgroundTask
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import user_code
from pymdc._calls.descriptors import when_there_is_one
from pymdc._crypto.file_hash import FileHash
from pymdc._transfers.progress import Progress
from pymdc._transfers.source import READ_INTO, Source
from pymdc.exceptions import IntegrityError

_BLOCK = 1024 * 1024
_PIECE = 256 * 1024  # bytes, after each of which progress may be reported
_UNKNOWN_TYPE = "application/octet-stream"
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})


@contextmanager
def body_of(
    source: Source,
    scope: CancelScope,
    progress: Progress,
    aside: BackgroundTask | None,
    *,
    field: str = "file",
    fields: Mapping[str, str] = _NO_FIELDS,
) -> Iterator[FileBody]:
    """Give the body for *source*, sent in the form's *field* and after the other *fields*.

    A file that the caller opened stands where it stood, unless the body is ``stored`` at the end.
    """
    with source.opened(scope) as file:
        # The first time this reads a file of the system.
        guess = partial(mimetypes.guess_type, source.name)
        kind = when_there_is_one(guess, scope.sleep, scope.remaining())[0] or _UNKNOWN_TYPE
        body = FileBody(file, _Form(source.name, kind, field, fields), progress, aside)
        try:
            yield body
        finally:
            if aside is not None:
                aside.wait()
            if not body.stored:
                with suppress(OSError):  # another one ended the upload
                    body.rewind()


class FileBody:
    """The rest of *file* as the last part of a multipart form, read while it is sent.

    ``size`` is the file's number of bytes, and ``headers`` are those of the body; ``hash`` names
    what was read, which is hashed *aside*, and is None where that is.
    """

    stored = False

    def __init__(
        self, file: Any, form: _Form, progress: Progress, aside: BackgroundTask | None
    ) -> None:
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
        self._head = form.head(boundary)
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + self.size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._head
        # What the file raises is none of the connection's errors, for which it would be taken.
        with user_code():
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
                self._progress.report(sent)
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


def _read(file: Any) -> Iterator[memoryview]:
    """Give what is left of *file*, in blocks each of which is good until the next but one."""
    if type(file) not in READ_INTO:  # what others have made may count on read()
        while block := file.read(_BLOCK):
            yield memoryview(block)
        return
    buffers = [memoryview(bytearray(_BLOCK)) for _ in range(2)]
    while count := file.readinto(buffers[0]):
        yield buffers[0][:count]
        buffers.reverse()


@dataclass(frozen=True)
class _Form:
    """A form in which the file *name*, of a mime type *kind*, is *field*, after other *fields*."""

    name: str
    kind: str
    field: str
    fields: Mapping[str, str]

    def head(self, boundary: str) -> bytes:
        """Return the parts before that of the file, and the head of this."""
        disposition = f"--{boundary}\r\nContent-Disposition: form-data; name="
        parts = [
            f'{disposition}"{_quoted(field)}"\r\n\r\n{value}\r\n'
            for field, value in self.fields.items()
        ]
        parts += (
            f'{disposition}"{_quoted(self.field)}"; filename="{_quoted(self.name)}"\r\n',
            f"Content-Type: {self.kind}\r\n\r\n",
        )
        return "".join(parts).encode("utf-8", "surrogateescape")


def _quoted(name: str) -> str:
    return re.sub(r"[\r\n]", " ", re.sub(r'(["\\])', r"\\\1", name))
