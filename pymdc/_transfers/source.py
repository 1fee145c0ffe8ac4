"""What an upload sends: a path, content or an open file, taken at the call and read on a worker."""

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
    """What is *given* for an upload, and its file name: *name*, or its own.

    A path is opened here, at the call: from now on its file may be removed, renamed or replaced.
    What goes wrong with that is raised by `opened`, on the worker; TypeError and ValueError say
    at once what can't be sent.
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
            self._file = _binary(given)
            own_name = getattr(given, "name", "")
            named = isinstance(own_name, str | bytes)
            self.name = os.path.basename(os.fsdecode(own_name)) if named else ""
        if chosen is not None:
            self.name = chosen

    @contextmanager
    def opened(self, scope: CancelScope) -> Iterator[Any]:
        """Give the file, to be read from where it stands; close it, unless the caller opened it."""
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
            self._file = _File(path)
        except OSError as error:
            if not none_left(error):
                self._failure = _explained(error) if isinstance(given, bytes) else error
            return
        if few_left(self._file.fileno()):
            self._file.close()
            self._file = None  # it is opened when its turn comes


class _File(io.FileIO):
    """A file opened here, which is closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        super().__init__(path, opener=_not_waiting)

    def __del__(self) -> None:
        self.close()


class _Content:
    """Bytes in memory as a file; nobody else gets hold of the memory, so that it can be let go."""

    def __init__(self, data: bytearray | memoryview) -> None:
        if isinstance(data, memoryview) and not data.c_contiguous:
            raise ValueError(f"the memory is not in one piece; {_EXPECTED}")
        self._data = memoryview(data).cast("B")
        self._place = 0

    def seek(self, offset: int, whence: int) -> int:
        """Stand *offset* bytes after the beginning, the place, or the end."""
        self._place = offset + (0, self._place, len(self._data))[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into *buffer*; return how many."""
        with self._data[self._place : self._place + len(buffer)] as block:
            buffer[: len(block)] = block
            self._place += len(block)
            return len(block)

    def close(self) -> None:
        """Hold the memory no longer."""
        self._data.release()


# What is read into one's own memory: of other files read() alone is known.
READ_INTO = (io.FileIO, _File, _Content)


def as_path(given: str | bytes | os.PathLike[Any], expected: str) -> str:
    """Return *given* as text; ValueError, which tells what was *expected*, for what is no path."""
    path = os.fsdecode(given)
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeError:
        raise ValueError(f"the path has characters that no path has; {expected}") from None
    raise ValueError(f"the path holds a zero byte; {expected}")


def absolute(path: str) -> str:
    """Return *path* from the root on; OSError where the working directory is gone.

    Nothing else of it is changed: a folder before ``..`` may be a link to another one.
    """
    return os.path.join("" if os.path.isabs(path) else os.getcwd(), path)


def _not_waiting(name: str, flags: int) -> int:
    # To open a pipe that nobody writes to would wait for ever; like this it cannot be rewound.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _explained(error: OSError) -> OSError:
    """Return *error* with what bytes mean, for somebody who meant them as content."""
    shown = error.filename if len(error.filename) <= _LONGEST_SHOWN else None
    return type(error)(error.errno, f"{error.strerror} ({_BYTES})", shown)


def _binary(file: object) -> Any:
    """Return *file* if it is open for reading bytes; TypeError or ValueError if it is not."""
    if not callable(getattr(file, "read", None)):
        raise TypeError(f"the file is {type(file).__name__}; {_EXPECTED}")
    source: Any = file
    nothing: object = b""
    place = None
    with suppress(Exception):  # of a pipe; it comes again when the file is sent
        place = source.tell()
    try:
        nothing = source.read(0)
    except ValueError as error:  # of a closed file, or one that is written
        raise ValueError(f"the file is not open for reading ({error}); {_EXPECTED}") from None
    except Exception:  # noqa: BLE001  # as above
        pass
    if isinstance(nothing, str):
        raise TypeError(f"the file is open as text; {_EXPECTED}")
    if nothing and place is not None:  # whatever that file understands by zero
        with suppress(Exception):
            source.seek(place)
    return source


def _base_name(name: Text) -> str:
    name = text(name, "the name")
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"the name is {name!r}; expected a file name, without a folder")
    return name
