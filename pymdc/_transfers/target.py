"""The output of a download: a part file beside the target, or a file that the caller opened."""

from __future__ import annotations

import errno
import io
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, NamedTuple
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
_LARGE = 16 * 1024 * 1024  # bytes; a larger shard is not buffered in memory
_DAY = 24 * 60 * 60  # seconds; a part file that is older and cannot be locked is not in use
_ACL = "system.posix_acl_access"
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class OrderedOutput:
    """A file that the caller opened: shards are written to it in order, each once it is verified.

    Until then a shard is buffered, in memory or, if it is large, in a temporary file.
    """

    in_order = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        name = getattr(file, "name", None)
        self.path = name if isinstance(name, str) else None
        self._buffers: deque[SpooledTemporaryFile[bytes]] = deque()

    def writer(self, _offset: int) -> Callable[[Block], object]:
        """Return a function that buffers the blocks of the next shard."""
        buffer = SpooledTemporaryFile(_LARGE)  # noqa: SIM115  # flush() or discard() closes it
        self._buffers.append(buffer)
        return buffer.write

    def flush(self, _offset: int, _size: int) -> Iterator[Block]:
        """Write the first buffered shard; yield each of its blocks once it is written."""
        buffer = self._buffers[0]
        buffer.seek(0)
        while block := buffer.read(_BLOCK):
            self._write(memoryview(block))
            yield block
        self._buffers.popleft().close()

    def discard(self, _size: int) -> None:
        """Discard the buffered shards."""
        while self._buffers:
            self._buffers.popleft().close()

    def _write(self, left: memoryview) -> None:
        with user_code():
            while left:
                count = self._file.write(left)
                if count is None and isinstance(self._file, io.RawIOBase):
                    raise BlockingIOError(errno.EAGAIN, "the file takes no bytes now")
                left = left[len(left) if count is None else count :]


class _NewFile(NamedTuple):
    """What a new file in the folder gets as mode and owner, and whether it can be locked."""

    mode: int
    owner: int
    lockable: bool


class PartialFile:
    """The part file *name*, in the folder of *path*; when it is whole, it is moved to *path*.

    Until it is moved only its owner may read it. When it is moved it gets the mode of the file that
    it replaces, or the mode of a *new* file.
    Several threads may write to it while another thread reads.
    A *resumable* part file is kept unless it is empty: a later download of the same file finds it.
    """

    in_order = False

    def __init__(
        self, file: io.FileIO, path: str, name: str, new: _NewFile, resumable: bool
    ) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._reader: io.FileIO | None = None
        self._buffer = memoryview(bytearray(_BLOCK))
        self.path = path
        self.new = new
        self._name = name
        self.resumable = resumable

    def writer(self, offset: int) -> Callable[[Block], object]:
        """Return a function that writes the blocks of the shard at *offset*."""

        def write(block: Block) -> None:
            nonlocal offset
            self.write(block, offset)
            offset += len(block)

        return write

    def write(self, block: Block, offset: int) -> None:
        """Write *block* at *offset*."""
        left = memoryview(block)
        with _naming(self.path):
            while left:
                count = self._write_at(left, offset)
                left, offset = left[count:], offset + count

    def _write_at(self, block: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), block, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.write(block)

    def flush(self, offset: int, size: int) -> Iterator[Block]:
        """Yield the blocks of the shard at *offset*, which are already written."""
        return self.read(offset, size)

    def read(self, offset: int, size: int) -> Iterator[Block]:
        """Yield *size* bytes from *offset* on, in blocks each of which is valid until the next."""
        if self._reader is None:
            self._reader = io.FileIO(self._name)
        self._reader.seek(offset)
        while size and (count := self._reader.readinto(self._buffer[: min(size, _BLOCK)])):
            yield self._buffer[:count]
            size -= count

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def discard(self, size: int) -> None:
        """Remove the bytes after the first *size*."""
        if len(self) > size:
            self._file.truncate(size)

    def move(self, path: str) -> None:
        """Replace the file at *path*, after taking its owner, group and mode."""
        with suppress(OSError):  # the file system may not have modes
            os.chmod(self._handle, self._mode(path))
        self._close_on_windows()
        os.replace(self._name, path)

    @property
    def _handle(self) -> int | str:
        return self._name if fcntl is None else self._file.fileno()

    def _mode(self, path: str) -> int:
        """Give the file the owner and group of the one at *path*; return the mode it should get."""
        try:
            before = os.stat(path)
        except FileNotFoundError:
            return self.new.mode
        mode = before.st_mode & 0o777
        for owner in (before.st_uid, -1):  # only root may set an owner, only a member a group
            with suppress(OSError, AttributeError):
                os.chown(self._handle, owner, before.st_gid)
                _copy_acl(path, self._handle)
                return mode
        # The group could not be kept, so the new group gets the permissions of everybody.
        return mode & 0o707 | (mode & 0o007) << 3

    def keep_or_remove(self) -> None:
        """Remove the file, unless a later download can resume it."""
        with suppress(OSError):
            if not (self.resumable and len(self)):
                self._close_on_windows()
                os.unlink(self._name)

    def close(self) -> None:
        """Close the file."""
        for file in (self._reader, self._file):
            if file is not None:
                file.close()

    def _close_on_windows(self) -> None:
        if fcntl is None:  # on Windows an open file can be neither moved nor removed
            self.close()


Output = OrderedOutput | PartialFile


class TargetPath(NamedTuple):
    """The path of a target, as it was *given* and as an *absolute* path."""

    given: str
    absolute: str


def check_target(to: object) -> TargetPath | BinaryIO:
    """Return *to* as an open binary file or a path; TypeError or ValueError if it is neither."""
    expected = "expected a path or a file opened with 'wb'"
    if isinstance(to, str | bytes | os.PathLike):
        return _target_path(as_path(to, expected))
    if not hasattr(to, "write"):
        raise TypeError(f"the target is {type(to).__name__}; {expected}")
    file: Any = to
    try:
        file.write(b"")
    except TypeError:
        raise TypeError(f"the target is open as text; {expected}") from None
    except ValueError as error:
        raise ValueError(f"the target is not open for writing ({error}); {expected}") from None
    except Exception as error:  # noqa: BLE001  # any other error is raised again by the download
        if getattr(error, "errno", None) == errno.EBADF:
            raise ValueError(f"the target is not open for writing; {expected}") from None
    return file  # type: ignore[no-any-return]  # an object that takes bytes is enough


def name_of(target: TargetPath | BinaryIO) -> str:
    """Return the file name of *target*, or '' if an open file has none."""
    path = target.given if isinstance(target, TargetPath) else getattr(target, "name", "")
    return os.path.basename(path) if isinstance(path, str) else ""


def _target_path(given: str) -> TargetPath:
    try:
        return TargetPath(given, absolute(given))
    except OSError:  # the working directory is gone; the download will raise that
        return TargetPath(given, given)


@contextmanager
def open_target(to: TargetPath | BinaryIO, file_hash: str) -> Iterator[Output]:
    """Yield the output. If *to* is a path, its file changes only when the download has succeeded.

    A file that the caller opened is left open.
    """
    if not isinstance(to, TargetPath):
        output = OrderedOutput(to)
        try:
            yield output
        finally:
            output.discard(0)
        return
    given, path = to.given, os.path.realpath(to.absolute)
    if os.path.isdir(path) or not os.path.basename(given):
        raise IsADirectoryError(f"{given} is a folder; expected the path of the file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(
            f"{given} is a device or a pipe; expected the path of the file to write, or an open one"
        )
    with closing(_open_part(path, given, file_hash)) as part:
        try:
            yield part
            part.move(path)
        except BaseException:
            part.keep_or_remove()
            raise
    _remove_leftovers(path, file_hash, part.new)


def _open_part(path: str, given: str, file_hash: str) -> PartialFile:
    """Open the part file for *path*: the resumable one, or one with a unique name.

    A unique name is used if the resumable file is unusable or in use by another download, and
    always where files cannot be locked, because there nothing shows whether it is in use.
    """
    resumable = _part_name(path, file_hash)
    unique = _part_name(path, file_hash, f"-{secrets.token_hex(8)}")
    with _naming(given):
        new = _probe(unique)
        if new.lockable:
            with suppress(OSError):
                file = _open_exclusive(resumable, new, os.O_CREAT)
                return PartialFile(file, given, resumable, new, resumable=True)
        file = _open_exclusive(unique, new, os.O_CREAT | os.O_EXCL)
        return PartialFile(file, given, unique, new, resumable=False)


def _part_name(path: str, file_hash: str, addition: str = "") -> str:
    name = f".pymdc-{quote(file_hash, safe='')}{addition}.part"
    return os.path.join(os.path.dirname(path), name)


def _probe(name: str) -> _NewFile:
    """Create the file *name*, inspect it, and remove it."""
    try:
        with io.FileIO(name, "x") as file:
            status = os.fstat(file.fileno())
            return _NewFile(status.st_mode & 0o777, status.st_uid, _can_lock(file))
    finally:
        with suppress(OSError):
            os.unlink(name)


def _can_lock(file: io.FileIO) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)  # locked by another _remove_leftovers()
    return True


def _open_exclusive(name: str, new: _NewFile, flags: int = 0) -> io.FileIO:
    """Open and lock the file *name* for this download alone; OSError if that is not possible."""
    while True:
        file = io.FileIO(os.open(name, _FLAGS | flags, 0o600), "r+")
        try:
            if new.lockable:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if flags & os.O_EXCL else fcntl.LOCK_NB))
            status = os.fstat(file.fileno())
            # Not compared with os.geteuid(): some file systems give all files to one user.
            if status.st_uid != new.owner:
                raise PermissionError(errno.EPERM, "it is another user's")
            with suppress(FileNotFoundError):
                if os.path.samestat(status, os.stat(name)):
                    if status.st_mode & 0o077 and new.lockable:  # an earlier version created it
                        with suppress(OSError):  # the file system may not have modes
                            os.fchmod(file.fileno(), 0o600)
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # another download has moved it to its target


def _remove_leftovers(path: str, file_hash: str, new: _NewFile) -> None:
    """Remove the part files that other downloads of this file left behind."""
    from glob import escape, glob  # not at the top: it takes a hundredth of import pymdc

    for name in (_part_name(path, file_hash), *glob(_part_name(escape(path), file_hash, "-*"))):
        with suppress(OSError):
            if new.lockable:
                with _open_exclusive(name, new):
                    os.unlink(name)
            elif os.lstat(name).st_mtime <= os.stat(path).st_mtime - _DAY:
                os.unlink(name)


def _copy_acl(path: str, to: int | str) -> None:
    """Copy the access control list of the file at *path* to *to*.

    If the file at *path* has no list, remove the list of *to*.
    """
    if not hasattr(os, "getxattr"):
        return
    try:
        control = os.getxattr(path, _ACL)
    except OSError:
        with suppress(OSError):
            os.removexattr(to, _ACL)
    else:
        os.setxattr(to, _ACL, control)


@contextmanager
def _naming(path: str | None) -> Iterator[None]:
    """Make an OSError name *path*, which the caller knows, instead of the part file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # io.UnsupportedOperation
            raise
        raise OSError(error.errno, error.strerror, path) from error
