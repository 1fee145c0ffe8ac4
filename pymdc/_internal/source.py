"""What an upload sends: a path, content or an open file, taken at the call and read on a worker."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

from pymdc._internal.scope import Scope
from pymdc._internal.text import Text, text

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

Given = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryIO

_EXPECTED = "expected a path, a bytearray, a memoryview or a file opened with 'rb'"
_BYTES = "bytes are a path; content is given as a file object, a bytearray or a memoryview"
_WITHOUT_LIMITS = 512  # descriptors of a process
_PAUSE = 0.1  # seconds between two tries for a descriptor
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
            self.name = os.path.basename(self._path)
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
    def opened(self, scope: Scope) -> Iterator[Any]:
        """Give the file, to be read from where it stands; close it, unless the caller opened it."""
        if self._failure is not None:
            raise self._failure
        file, self._file = self._file, None
        try:
            while file is None:
                file = self._late(scope)
            yield file
        finally:
            if self._own and file is not None:
                file.close()

    def _open_path(self, given: str | bytes | os.PathLike[Any]) -> None:
        path = os.fsdecode(given)
        if "\0" in path:
            raise ValueError(f"the path holds a zero byte; {_EXPECTED}: {_BYTES}")
        try:
            self._path = os.path.abspath(path)
            if len(_File.descriptors) < _most_open():
                self._file = _File(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                self._failure = _explained(error) if isinstance(given, bytes) else error

    def _late(self, scope: Scope) -> Any:
        """Open a path for which there was no descriptor at the call; None if there is none yet."""
        try:
            return _File(self._path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or scope.left() < _PAUSE:
                raise
        scope.sleep(_PAUSE)
        return None


class _File(io.FileIO):
    """A file opened here, which is closed when nobody holds it any more."""

    descriptors: ClassVar[set[int]] = set()  # of all that are open

    def __init__(self, path: str) -> None:
        super().__init__(path, opener=_not_waiting)
        self.descriptors.add(self.fileno())

    def close(self) -> None:
        if not self.closed:
            self.descriptors.discard(self.fileno())
            super().close()

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


def _most_open() -> int:
    """Return how many files may be open here: half of the descriptors; the rest is for sockets."""
    if resource is None:
        return _WITHOUT_LIMITS // 2
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit // 2


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
    nothing: object = b""
    try:
        nothing = file.read(0)  # type: ignore[attr-defined]  # it was looked for
    except ValueError as error:  # of a closed file, or one that is written
        raise ValueError(f"the file is not open for reading ({error}); {_EXPECTED}") from None
    except Exception:  # noqa: BLE001  # it comes again when the file is sent
        pass
    if isinstance(nothing, str):
        raise TypeError(f"the file is open as text; {_EXPECTED}")
    return file


def _base_name(name: Text) -> str:
    name = text(name, "the name")
    if not name or "/" in name or "\\" in name:
        raise ValueError(f"the name is {name!r}; expected a file name, without a folder")
    return name
