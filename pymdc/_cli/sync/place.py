"""Files are put into a folder, each whole or not at all, and nowhere else."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress

from pymdc import file_hash
from pymdc._cli.failures import Failure
from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.scan import Scan, is_part
from pymdc._cli.sync.tree import Entry, parents_of

_STAGED = re.compile("[0-9a-f]{40}(-copy)?")
_FORBIDDEN_ON_WINDOWS = frozenset('\\:*?"<>|')


class Folder:
    """The folder *root*, in which *found* was found.

    A file is fetched into the folder `NAME` in it, which only its owner can read. It gets its mode
    and its mtime there, and is then moved to its path.
    """

    def __init__(self, found: Scan) -> None:
        self._found = found
        self._staging = os.path.join(found.root, NAME)
        self._files = set(found.files)
        self._folders: set[str] = set()  # that are real folders, as far as known

    def staged(self, file_hash: str) -> str:
        """Return the path to fetch a content to."""
        with suppress(FileExistsError):
            os.mkdir(self._staging, 0o700)
        if not stat.S_ISDIR(os.lstat(self._staging).st_mode):
            raise Failure(f"{self._staging} is in the way, and is no folder")
        return os.path.join(self._staging, file_hash)

    def check(self, path: str) -> None:
        """Raise a failure if *path* must not be written to."""
        if os.name == "nt" and _FORBIDDEN_ON_WINDOWS & set(path):
            raise Failure(f"{path} has characters that Windows has not in names")
        self.check_parents(path)
        try:
            kind = os.lstat(self._found.path(path)).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(kind):
            raise Failure(f"{path} is a folder here, and a file there")
        if not stat.S_ISREG(kind):
            raise Failure(f"{path} is no regular file here, and is not replaced")
        if path not in self._files:
            raise Failure(f"{path} is here already under another spelling of its name")

    def check_parents(self, path: str) -> None:
        """Raise a failure if *path* is not in real folders of this one."""
        for parent in reversed([*parents_of(path)]):
            self._check_folder(parent)

    def _check_folder(self, folder: str) -> None:
        if folder in self._folders:
            return
        try:
            kind = os.lstat(self._found.path(folder)).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(kind):
            raise Failure(f"{folder} is a symbolic link here, which is not followed")
        if not stat.S_ISDIR(kind):
            raise Failure(f"{folder} is a file here, and a folder there")
        if folder not in self._found.folders:
            raise Failure(f"{folder} is here already under another spelling of its name")
        self._folders.add(folder)

    def make_folder(self, path: str) -> None:
        """Make a folder, and those that it is in."""
        for folder in (*reversed([*parents_of(path)]), path):
            if folder in self._folders:
                continue
            self._check_folder(folder)
            if folder not in self._folders:
                os.mkdir(self._found.path(folder))
                self._folders.add(folder)

    def place(self, staged: str, path: str, entry: Entry) -> None:
        """Move a file that was fetched to *path*."""
        self.check(path)
        if folder := path.rpartition("/")[0]:
            self.make_folder(folder)
        set_times(staged, entry)
        _move(staged, self._found.path(path))
        self._files.add(path)

    def copy(self, like: str, path: str, entry: Entry) -> None:
        """Copy the file *like* to *path*; a failure if it does not have the hash of *entry*."""
        self.check(path)
        staged = self.staged(f"{entry.hash}-copy")
        try:
            shutil.copyfile(self._found.path(like), staged, follow_symlinks=False)
            if file_hash(staged) != entry.hash:
                raise Failure(f"{like} has changed meanwhile")
            self.place(staged, path, entry)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)

    def finish(self, path: str, entry: Entry) -> None:
        """Give a file that is there the mode and the mtime of *entry*, unless it has them."""
        found = self._found.files[path]
        if entry.mode not in (None, found.mode) or entry.mtime not in (None, found.mtime):
            self.check(path)
            set_times(self._found.path(path), entry)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.check_parents(path)
        os.unlink(self._found.path(path))
        self._files.discard(path)

    def remove_folders(self, unwanted: Callable[[str], bool]) -> None:
        """Remove the *unwanted* folders that are empty."""
        for folder in sorted(self._found.folders, reverse=True):  # the inner ones first
            if unwanted(folder):
                with suppress(OSError, Failure):
                    self.check_parents(folder)
                    os.rmdir(self._found.path(folder))
                    self._folders.discard(folder)

    def close(self) -> None:
        """Remove the folder for what is fetched, with what syncs have left in it."""
        with suppress(OSError):
            for name in os.listdir(self._staging):
                if is_part(name) or _STAGED.fullmatch(name):
                    os.unlink(os.path.join(self._staging, name))
            os.rmdir(self._staging)


def set_times(path: str, entry: Entry) -> None:
    """Give the file at *path* the mode and the mtime of *entry*, as far as they are known."""
    if entry.mode is not None and os.name == "posix":
        os.chmod(path, entry.mode)
    if entry.mtime is not None:
        os.utime(path, ns=(entry.mtime, entry.mtime))


def _move(path: str, target: str) -> None:
    """Move a file, whole or not at all, also to another file system."""
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = os.path.join(os.path.dirname(target), f".pymdc-{secrets.token_hex(8)}.part")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
            shutil.copy2(path, part)
            os.replace(part, target)
        finally:
            for rest in (part, path):
                with suppress(FileNotFoundError):
                    os.unlink(rest)
