"""What an upload sends: a path, content or an open file, checked at the call, read on a worker."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from pymdc._arguments import Text, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.descriptors import few_left, none_left, when_there_is_one

Given = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryIO

_EXPECTED = "expected a path, a bytearray, a memoryview or a file opened with 'rb'"
_BYTES = "bytes are a path; content is given as a file object, a bytearray or a memoryview"
_LONGEST_SHOWN = 255  # characters of a path; what is longer may be content


class Source:
    """What is *given* for an upload, and its file name: *name*, or the name that it has.

    A path is opened here, at the call: after that its file may be removed, renamed or replaced.
    If opening fails, `opened` raises the OSError, on the worker. If *given* is nothing that can be
    sent, TypeError or ValueError is raised here.
    """

    def __init__(self, given: object, name: Text | None = None) -> None:
        chosen = None if name is None else _base_name(name)
        self._file: Any = None
        self._path = ""
        self._failure: OSError | None = None
        self._own = isinstance(given, str | bytes | os.PathLike | bytearray | memoryview)
        if isinstance(given, str | bytes | os.PathLike):
            self._open_path(given)
        elif isinstance(given, bytearray | memoryview):
            self._file, self.name = _Content(given), ""
        else:
            self._file = _check_readable(given)
            own_name = getattr(given, "name", "")
            named = isinstance(own_name, str | bytes)
            self.name = os.path.basename(os.fsdecode(own_name)) if named else ""
        if chosen is not None:
            self.name = chosen

    @contextmanager
    def opened(self, scope: CancelScope) -> Iterator[Any]:
        """Yield the file, to be read from its position on; close it unless the caller opened it."""
        if self._failure is not None:
            raise self._failure
        file, self._file = self._file, None
        if file is None:
            file = when_there_is_one(partial(_File, self._path), scope.sleep, scope.remaining())
        try:
            yield file
        finally:
            if self._own:
                file.close()

    def _open_path(self, given: str | bytes | os.PathLike[Any]) -> None:
        path = as_path(given, _BYTES if isinstance(given, bytes) else _EXPECTED)
        self.name = os.path.basename(path)
        try:
            self._path = absolute(path)
            file = _File(path)
        except OSError as error:
            if not none_left(error):
                self._failure = _with_note(error) if isinstance(given, bytes) else error
            return
        if not few_left(file.fileno()):  # else it is opened again when its turn comes
            self._file = file


class _File(io.FileIO):
    """A file opened here, closed without a warning when nothing refers to it any more."""

    def __init__(self, path: str) -> None:
        super().__init__(path, opener=_open_without_blocking)

    def __del__(self) -> None:
        self.close()


class _Content:
    """Bytes in memory as a file; it exports no views, so that the memory can be released."""

    def __init__(self, data: bytearray | memoryview) -> None:
        if isinstance(data, memoryview) and not data.c_contiguous:
            raise ValueError(f"the memory is not in one piece; {_EXPECTED}")
        self._data = memoryview(data).cast("B")
        self._position = 0

    def seek(self, offset: int, whence: int) -> int:
        """Move to *offset* bytes after the start, the position, or the end; return the position."""
        self._position = offset + (0, self._position, len(self._data))[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into *buffer*; return their number."""
        with self._data[self._position : self._position + len(buffer)] as block:
            buffer[: len(block)] = block
            self._position += len(block)
            return len(block)

    def close(self) -> None:
        """Release the memory."""
        self._data.release()


# Types that are read with readinto(); other files may have only read().
READ_INTO = (io.FileIO, _File, _Content)


def as_path(given: str | bytes | os.PathLike[Any], expected: str) -> str:
    """Return *given* as text; ValueError, which says what was *expected*, if it is not a path."""
    path = os.fsdecode(given)
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeError:
        raise ValueError(f"the path has characters that no path has; {expected}") from None
    raise ValueError(f"the path holds a zero byte; {expected}")


def absolute(path: str) -> str:
    """Return *path* as an absolute path; OSError if the working directory is gone.

    ``..`` is kept, because the folder before it may be a symbolic link.
    """
    return os.path.join("" if os.path.isabs(path) else os.getcwd(), path)


def _open_without_blocking(name: str, flags: int) -> int:
    # Opening a pipe without a writer would block for ever. With O_NONBLOCK it is opened, and then
    # refused because it cannot be rewound.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _with_note(error: OSError) -> OSError:
    """Return *error* with a note that bytes are a path, in case they were meant as content."""
    shown = error.filename if len(error.filename) <= _LONGEST_SHOWN else None
    return type(error)(error.errno, f"{error.strerror} ({_BYTES})", shown)


def _check_readable(file: object) -> Any:
    """Return *file* if it is open for reading bytes, else TypeError or ValueError."""
    if not callable(getattr(file, "read", None)):
        raise TypeError(f"the file is {type(file).__name__}; {_EXPECTED}")
    source: Any = file
    empty: object = b""
    position = None
    with suppress(Exception):  # a pipe has no position; sending raises this again
        position = source.tell()
    try:
        empty = source.read(0)
    except ValueError as error:  # of a closed file, or one open for writing
        raise ValueError(f"the file is not open for reading ({error}); {_EXPECTED}") from None
    except Exception:  # noqa: BLE001  # as above
        pass
    if isinstance(empty, str):
        raise TypeError(f"the file is open as text; {_EXPECTED}")
    if empty and position is not None:  # read(0) of this file has taken bytes
        with suppress(Exception):
            source.seek(position)
    return source


def _base_name(name: Text) -> str:
    name = text(name, "the name")
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"the name is {name!r}; expected a file name, without a folder")
    return name
