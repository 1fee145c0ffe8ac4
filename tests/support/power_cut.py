"""A program under a supervisor, which knows what a power cut leaves of a folder.

The supervisor sees each change that the program makes to the folder, SQLite's too, before the
kernel makes it (a filter of seccomp tells it), and can kill the program instead.
By POSIX, a power cut leaves of a file what was synced, and of a folder the names that were synced;
of everything else it leaves anything.
Run as a program, this module puts itself under the supervisor at a socket, and then becomes the
command in its arguments.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# The numbers of the system calls on each architecture.
_NUMBERS = {
    "x86_64": {
        **{"write": 1, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75},
        **{"ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87},
        **{"openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "fallocate": 285},
        **{"renameat2": 316, "seccomp": 317},
    },
    "aarch64": {
        **{"mkdirat": 34, "unlinkat": 35, "renameat": 38, "ftruncate": 46, "fallocate": 47},
        **{"openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "fsync": 82},
        **{"fdatasync": 83, "renameat2": 276, "seccomp": 277},
    },
}
_CALLS = _NUMBERS.get(platform.machine(), {}) if platform.system() == "Linux" else {}
_NAMES = {number: name for name, number in _CALLS.items() if name != "seccomp"}
_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND, _IS_VALID, _CONTINUE = 0xC0502100, 0xC0182101, 0x40082102, 1
_MAX_PATH = 4096
_MINUTE = 60

Survives = Callable[[], bool]


@dataclass(eq=False)
class _File:
    synced: bytes = b""
    changed: float = 0  # when it was written last
    pending: list[Callable[[bytearray], None]] = field(default_factory=list)

    def sync(self) -> None:
        self.synced, self.pending = self.after(lambda: True), []

    def after(self, survives: Survives) -> bytes:
        content = bytearray(self.synced)
        for change in self.pending:
            if survives():
                change(content)
        return bytes(content)


_FOLDER = _File()
_Names = dict[Path, _File | None]  # None in a change: the name is removed


class Disk:
    """The files below *root*, and what of them is synced; at first everything is."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: _Names = {
            path: _FOLDER if path.is_dir() else _File(path.read_bytes(), path.stat().st_mtime)
            for path in root.rglob("*")
        }
        self._names = dict(self._synced)
        self._pending: list[_Names] = []

    def has(self, path: Path) -> bool:
        """Say whether *path* is below the root."""
        return self._root in path.parents

    def create(self, path: Path, *, folder: bool = False) -> None:
        """Create *path* if it is missing."""
        if path not in self._names:
            self._change({path: _FOLDER if folder else _File()})

    def remove(self, path: Path) -> None:
        """Remove *path* if it is there."""
        if path in self._names:
            self._change({path: None})

    def rename(self, old: Path, new: Path) -> None:
        """Rename *old*, which is a file."""
        self._change({old: None, new: self._names[old]})

    def write(self, path: Path, start: int, data: bytes) -> None:
        """Write *data* at *start*."""

        def change(content: bytearray) -> None:
            content.extend(bytes(max(0, start - len(content))))
            content[start : start + len(data)] = data

        self._add(path, change)

    def resize(self, path: Path, size: int, *, grow_only: bool = False) -> None:
        """Cut or extend *path* to *size* bytes."""

        def change(content: bytearray) -> None:
            content.extend(bytes(max(0, size - len(content))))
            if not grow_only:
                del content[size:]

        self._add(path, change)

    def sync(self, path: Path) -> None:
        """Make what was done to a file, or to the names in a folder, outlast a power cut."""
        file = _FOLDER if path == self._root else self._names.get(path)
        if file is not None and file is not _FOLDER:
            file.sync()
        mine = [names for names in self._pending if path in (name.parent for name in names)]
        self._pending = [names for names in self._pending if names not in mine]
        for names in mine:
            self._synced |= names

    def leave(self, to: Path, survives: Survives) -> None:
        """Write what a power cut leaves to the new folder *to*.

        *survives* says of each change that was not synced whether it is left.
        """
        names = dict(self._synced)
        for change in self._pending:
            if survives():
                names |= change
        to.mkdir()
        for path, file in sorted((path, file) for path, file in names.items() if file):
            target = to / path.relative_to(self._root)
            if not target.parent.exists():
                continue  # the name of its folder was lost
            if file is _FOLDER:
                target.mkdir()
            else:
                target.write_bytes(file.after(survives))
                os.utime(target, (file.changed, file.changed))

    def _change(self, names: _Names) -> None:
        self._pending.append(names)
        self._names |= names
        self._names = {path: file for path, file in self._names.items() if file}

    def _add(self, path: Path, change: Callable[[bytearray], None]) -> None:
        file = self._names.get(path)
        if file is not None:  # else it has no name any more
            file.pending.append(change)
            file.changed = time.time()


class _Call(NamedTuple):
    """A system call that a thread of the program is about to make."""

    thread: int
    name: str
    arguments: tuple[int, ...]

    def path(self, index: int) -> Path:
        """Return the path that an argument points to."""
        text = self.memory(self.arguments[index], _MAX_PATH).partition(b"\0")[0]
        return Path(os.fsdecode(text))

    def file(self) -> Path:
        """Return the path of the file that the first argument is a descriptor of."""
        return Path(os.readlink(f"/proc/{self.thread}/fd/{self.arguments[0]}"))

    def position(self) -> int:
        """Return where the next write to this file begins."""
        info = Path(f"/proc/{self.thread}/fdinfo/{self.arguments[0]}").read_text()
        return int(info.split()[1])

    def data(self) -> bytes:
        """Return what a write writes."""
        if self.name != "writev":
            return self.memory(self.arguments[1], self.arguments[2])
        pieces = struct.iter_unpack("PN", self.memory(self.arguments[1], 16 * self.arguments[2]))
        return b"".join(self.memory(start, size) for start, size in pieces)

    def memory(self, start: int, size: int) -> bytes:
        """Return the memory of the program."""
        with open(f"/proc/{self.thread}/mem", "rb", 0) as memory:
            return os.pread(memory.fileno(), size, start)


def _change_of(call: _Call, disk: Disk) -> Callable[[], None] | None:
    """Return what *call* changes on *disk*; None if nothing."""
    name, arguments = call.name, call.arguments
    if name in ("openat", "mkdirat", "unlinkat", "renameat", "renameat2"):
        path = call.path(1)
    elif name in ("mkdir", "rmdir", "unlink", "rename"):
        path = call.path(0)
    else:
        path = call.file()
    if not disk.has(path) and not (name == "fsync" and disk.has(path / "x")):
        return None
    if name in ("write", "writev"):
        return lambda: disk.write(path, call.position(), call.data())
    if name == "openat":
        truncates, creates = arguments[2] & os.O_TRUNC, arguments[2] & os.O_CREAT

        def open_() -> None:
            disk.create(path)
            if truncates:
                disk.resize(path, 0)

        return open_ if creates or truncates else None
    changes: dict[str, Callable[[], None]] = {
        "pwrite64": lambda: disk.write(path, arguments[3], call.data()),
        "ftruncate": lambda: disk.resize(path, arguments[1]),
        "fallocate": lambda: disk.resize(path, arguments[2] + arguments[3], grow_only=True),
        "mkdir": lambda: disk.create(path, folder=True),
        "mkdirat": lambda: disk.create(path, folder=True),
        "unlink": lambda: disk.remove(path),
        "unlinkat": lambda: disk.remove(path),
        "rmdir": lambda: disk.remove(path),
        "rename": lambda: disk.rename(path, call.path(1)),
        "renameat": lambda: disk.rename(path, call.path(3)),
        "renameat2": lambda: disk.rename(path, call.path(3)),
        "fsync": lambda: disk.sync(path),
        "fdatasync": lambda: disk.sync(path),
    }
    return changes[name]


class Supervised:
    """A running program; *changes* are the names of the system calls that changed *disk*."""

    def __init__(
        self, process: subprocess.Popen[str], listener: int, disk: Disk, kill_at: int | None
    ) -> None:
        self.process = process
        self.changes: list[str] = []
        self._listener = listener
        self._disk = disk
        self._kill_at = kill_at
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Let the program go on until it ends, or is killed."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        try:
            while not poll.poll()[0][1] & select.POLLHUP:
                self._serve_next()
        except BaseException as error:  # noqa: BLE001  # raised again by the test's thread
            self.failure = error
            self.process.kill()
        finally:
            os.close(self._listener)

    def _serve_next(self) -> None:
        request = bytearray(80)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, request)
        except OSError:  # the thread was killed
            return
        id_, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", request)
        try:
            if not self._follow(_Call(thread, _NAMES[number], tuple(arguments))):
                return
        except OSError:
            if self._waits(id_):
                raise
            return  # the thread was killed, and has no files any more
        with suppress(OSError):  # the thread was killed
            fcntl.ioctl(self._listener, _SEND, struct.pack("QqiI", id_, 0, 0, _CONTINUE))

    def _follow(self, call: _Call) -> bool:
        """Do to the disk what *call* is about to do; or kill the program, and return False."""
        change = _change_of(call, self._disk)
        if change is not None:
            if len(self.changes) == self._kill_at:
                os.kill(self.process.pid, signal.SIGKILL)
                return False
            change()
            self.changes.append(call.name)
        return True

    def _waits(self, id_: int) -> bool:
        """Return whether the thread still waits for the answer to its call."""
        try:
            fcntl.ioctl(self._listener, _IS_VALID, struct.pack("Q", id_))
        except OSError:
            return False
        return True


@contextmanager
def supervised(
    command: Sequence[str], disk: Disk, kill_at: int | None = None
) -> Iterator[Supervised]:
    """Run *command*; kill it instead of its change number *kill_at*, counted from 0."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        _, [listener], _, _ = socket.recv_fds(ours, 1, 1)
    running = Supervised(process, listener, disk, kill_at)
    thread = threading.Thread(target=running.run)
    thread.start()
    with process:
        try:
            yield running
        finally:
            process.terminate()
            process.communicate(timeout=_MINUTE)
            thread.join()
    if running.failure is not None:
        raise running.failure


def missing() -> str:
    """Return why no program can be supervised here; empty if one can."""
    if not _CALLS:
        return "the numbers of system calls are known for Linux on x86_64 and aarch64"
    probe = subprocess.run([sys.executable, __file__], check=False)
    return "this kernel tells nobody of system calls" if probe.returncode else ""


def _listen() -> int:
    """Have the system calls of this process told; return the descriptor that tells them."""
    count = len(_NAMES)
    tests = [(_IF_EQUAL, count - index, 0, number) for index, number in enumerate(_NAMES)]
    steps = [(_LOAD, 0, 0, 0), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    libc: Any = ctypes.CDLL(None)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return -1
    return int(libc.syscall(_CALLS["seccomp"], _SET_FILTER, _NEW_LISTENER, program))


if __name__ == "__main__":
    listening = _listen()
    if listening < 0 or len(sys.argv) == 1:
        sys.exit(listening < 0)
    with socket.socket(fileno=int(sys.argv[1])) as supervisor:
        socket.send_fds(supervisor, [b"."], [listening])
    os.close(listening)
    os.execv(sys.argv[2], sys.argv[2:])
