"""Where a download is written: a part file beside its target, or a file that the caller opened."""

from __future__ import annotations

import errno
import glob
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO
from urllib.parse import quote

from pymdc._calls.capture import user_code
from pymdc._crypto.file_hash import Block
from pymdc._transfers.source import absolute, as_path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

Target = str | os.PathLike[str] | os.PathLike[bytes] | bytes

_BLOCK = 1024 * 1024
_LARGE = 16 * 1024 * 1024  # bytes of a shard that are not held in memory
_DAY = 24 * 60 * 60  # seconds after which a part file that cannot be locked is nobody's
_ACCESS = "system.posix_acl_access"
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Stream:
    """A file that the caller opened: it takes shards in order, each when it is verified.

    Until then a shard is held in memory, or what is too large for that in a temporary file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        name = getattr(file, "name", None)
        self.path = name if isinstance(name, str) else None
        self._held = SpooledTemporaryFile(_LARGE)  # noqa: SIM115  # closed by close()

    def hold(self, block: Block) -> None:
        """Hold the next *block* of a shard."""
        self._held.write(block)

    def pour(self) -> None:
        """Write the shard where the file stands, and hold no more of it."""
        self._held.seek(0)
        while block := self._held.read(_BLOCK):
            self._write(memoryview(block))
        self.forget()

    def forget(self) -> None:
        """Hold no more of the shard."""
        self._held.seek(0)
        self._held.truncate()

    def close(self) -> None:
        """Free what was held; the file stays open."""
        self._held.close()

    def _write(self, left: memoryview) -> None:
        with user_code():
            while left:
                count = self._file.write(left)
                if count is None and isinstance(self._file, io.RawIOBase):
                    raise BlockingIOError(errno.EAGAIN, "the file takes no bytes now")
                left = left[len(left) if count is None else count :]


@dataclass(frozen=True)
class _New:
    """What a new file in the folder gets: its mode and owner, and whether it can be locked."""

    mode: int
    owner: int
    locks: bool


class Part:
    """A file beside the one at *path*, which takes its place when it is whole.

    Until then nobody but its owner may read it; then it has the mode of what it replaces, or that
    of a *new* file.
    It may be read on another thread than it is written on. One to be *found* by another try stays
    when it ends with something in it.
    """

    def __init__(self, file: io.FileIO, path: str, name: str, new: _New, found: bool) -> None:
        self._file = file
        self._reader: io.FileIO | None = None
        self._buffer = memoryview(bytearray(_BLOCK))
        self.path = path
        self.new = new
        self._name = name
        self._found = found

    def write(self, block: Block, place: int) -> None:
        """Write *block* at *place*, whatever stands before."""
        left = memoryview(block)
        with _named(self.path):
            self._file.seek(place)
            while left:
                left = left[self._file.write(left) :]

    def read(self, place: int, size: int) -> Iterator[memoryview]:
        """Give the *size* bytes at *place*, in blocks that are good until the next one."""
        if self._reader is None:
            self._reader = io.FileIO(self._name)
        self._reader.seek(place)
        while size and (count := self._reader.readinto(self._buffer[: min(size, _BLOCK)])):
            yield self._buffer[:count]
            size -= count

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Cut off what stands after *size* bytes."""
        if len(self) > size:
            self._file.truncate(size)

    def move(self, path: str) -> None:
        """Take the place of what is at *path*, and its owner, group and mode."""
        with suppress(OSError):  # of a file system whose modes are fixed
            os.chmod(self._handle, self._mode(path))
        if fcntl is None:
            self.close()  # where a file that is open can't be moved
        os.replace(self._name, path)

    @property
    def _handle(self) -> int | str:
        return self._name if fcntl is None else self._file.fileno()

    def _mode(self, path: str) -> int:
        """Return the mode for *path*, where the file was given the owner and group it has there."""
        try:
            before = os.stat(path)
        except FileNotFoundError:
            return self.new.mode
        mode = before.st_mode & 0o777
        for owner in (before.st_uid, -1):  # the owner is root's to give, and the group a member's
            with suppress(OSError, AttributeError):
                os.chown(self._handle, owner, before.st_gid)
                _copy_list(path, self._handle)
                return mode
        # The group is another one: it may do what everybody may.
        return mode & 0o707 | (mode & 0o007) << 3

    def leave(self) -> None:
        """Remove the file, unless there is something in it that another try can use."""
        with suppress(OSError):
            if not (self._found and len(self)):
                os.unlink(self._name)

    def close(self) -> None:
        """Close the file."""
        for file in (self._reader, self._file):
            if file is not None:
                file.close()


@dataclass(frozen=True)
class Place:
    """The path of a target: as it was *given*, and the *absolute* one that it was at the call."""

    given: str
    absolute: str


def place(to: object) -> Place | BinaryIO:
    """Return where *to* is: a path or an open binary file; TypeError or ValueError for neither."""
    expected = "expected a path or a file opened with 'wb'"
    if isinstance(to, str | bytes | os.PathLike):
        return _place(as_path(to, expected))
    if not hasattr(to, "write"):
        raise TypeError(f"the target is {type(to).__name__}; {expected}")
    file: Any = to
    try:
        file.write(b"")
    except TypeError:
        raise TypeError(f"the target is open as text; {expected}") from None
    except ValueError as error:
        raise ValueError(f"the target is not open for writing ({error}); {expected}") from None
    except Exception as error:  # noqa: BLE001  # others come again when the file is written
        if getattr(error, "errno", None) == errno.EBADF:
            raise ValueError(f"the target is not open for writing; {expected}") from None
    return file  # type: ignore[no-any-return]  # what takes bytes is taken for a binary file


def _place(given: str) -> Place:
    try:
        return Place(given, absolute(given))
    except OSError:  # the working directory is gone, which is told when the file is written
        return Place(given, given)


@contextmanager
def target(to: Place | BinaryIO, file_hash: str) -> Iterator[Stream | Part]:
    """Give what to write to: when all went well a path holds the whole file, else nothing new.

    An open file is written as it is, and left open.
    """
    if not isinstance(to, Place):
        with closing(Stream(to)) as stream:
            yield stream
        return
    given, path = to.given, os.path.realpath(to.absolute)
    if os.path.isdir(path) or not os.path.basename(given):
        raise IsADirectoryError(f"{given} is a folder; expected the path of the file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(
            f"{given} is a device or a pipe; expected the path of the file to write, or an open one"
        )
    with closing(_part(path, given, file_hash)) as part:
        try:
            yield part
            part.move(path)
        except BaseException:
            part.leave()
            raise
    _sweep(path, file_hash, part.new)


def _part(path: str, given: str, file_hash: str) -> Part:
    """Return the part file for *path*, which *file_hash* names.

    When somebody else writes to that one, or it can't be used, it is one of chance; so it is where
    files can't be locked, for two downloads of one file must not meet.
    """
    found, name = f"{_beginning(path, file_hash)}.part", _by_chance(path, file_hash)
    with _named(given):
        new = _tried(name)
        if new.locks:
            with suppress(OSError):
                return Part(_claimed(found, new, os.O_CREAT), given, found, new, found=True)
        file = _claimed(name, new, os.O_CREAT | os.O_EXCL)
        return Part(file, given, name, new, found=False)


def _beginning(path: str, file_hash: str) -> str:
    return os.path.join(os.path.dirname(path), f".pymdc-{quote(file_hash, safe='')}")


def _by_chance(path: str, file_hash: str) -> str:
    return f"{_beginning(path, file_hash)}-{secrets.token_hex(8)}.part"


def _tried(name: str) -> _New:
    """Make the file *name*, see what it is like, and remove it."""
    try:
        with io.FileIO(name, "x") as file:
            status = os.fstat(file.fileno())
            return _New(status.st_mode & 0o777, status.st_uid, _locks(file))
    finally:
        with suppress(OSError):
            os.unlink(name)


def _locks(file: io.FileIO) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)  # somebody looks whether it is left over
    return True


def _claimed(name: str, new: _New, flags: int = 0) -> io.FileIO:
    """Return the file *name*, for this download alone; OSError if it can't be had."""
    while True:
        file = io.FileIO(os.open(name, _FLAGS | flags, 0o600), "r+")
        try:
            if new.locks:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if flags & os.O_EXCL else fcntl.LOCK_NB))
            status = os.fstat(file.fileno())
            # On some file systems every file belongs to the same user, whoever makes it.
            if status.st_uid != new.owner:
                raise PermissionError(errno.EPERM, "it is another user's")
            with suppress(FileNotFoundError):
                if os.path.samestat(status, os.stat(name)):
                    if status.st_mode & 0o077 and new.locks:  # of an earlier version
                        with suppress(OSError):  # of a file system whose modes are fixed
                            os.fchmod(file.fileno(), 0o600)
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was moved to its target meanwhile


def _sweep(path: str, file_hash: str, new: _New) -> None:
    """Remove the part files of this file that other downloads have left."""
    beginning = _beginning(path, file_hash)
    for name in (f"{beginning}.part", *glob.glob(f"{glob.escape(beginning)}-*.part")):
        with suppress(OSError):
            if new.locks:
                with _claimed(name, new):
                    os.unlink(name)
            elif os.lstat(name).st_mtime <= os.stat(path).st_mtime - _DAY:
                os.unlink(name)


def _copy_list(path: str, to: int | str) -> None:
    """Give *to* the access control list at *path*, which a mode does not tell, or none."""
    if not hasattr(os, "getxattr"):
        return
    try:
        control = os.getxattr(path, _ACCESS)
    except OSError:
        with suppress(OSError):
            os.removexattr(to, _ACCESS)
    else:
        os.setxattr(to, _ACCESS, control)


@contextmanager
def _named(path: str | None) -> Iterator[None]:
    """Let an error of the system tell *path*, which the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a file that is not open for writing
            raise
        raise OSError(error.errno, error.strerror, path) from error
