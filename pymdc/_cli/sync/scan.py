"""What is in a folder of this machine."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from pymdc._cli.failures import Failure, failure_of
from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.tree import parents_of

# A file that is written to twice within this time may have the same mtime after both: of file
# systems in use, FAT counts in the largest steps.
_GRANULARITY = 2_000_000_000  # nanoseconds


class Local(NamedTuple):
    """A file of this machine; the fields are as in `Entry`."""

    size: int
    mtime: int
    mode: int | None
    fresh: bool


@dataclass
class Scan:
    """The *files* below *root*, the *folders*, and those of them that are *empty*.

    The *others* take no part: symbolic links, devices, pipes and sockets; what could not be read
    is in *failures*.
    """

    root: str
    files: dict[str, Local] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def path(self, path: str) -> str:
        """Return the path on this machine of *path* in the folder."""
        return os.path.join(self.root, *path.split("/"))


@dataclass(frozen=True)
class Filter:
    """Which paths take part: those like *include*, if there are any, and not like *exclude*.

    A pattern is for a path, for a name, or for a folder with all that is in it.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def chosen(self, path: str) -> bool:
        """Say whether *path* takes part."""
        return (not self.include or _matches(path, self.include)) and not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Say whether *path* takes no part, with all that is in it."""
        return bool(self.exclude) and _matches(path, self.exclude)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    texts = {part for it in (path, *parents_of(path)) for part in (it, it.rpartition("/")[2])}
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in texts)


def scan(root: str, filter_: Filter, clock: Callable[[], int] = time.time_ns) -> Scan:
    """Return what takes part in the folder *root*; OSError if *root* is no folder."""
    found = Scan(root)
    waiting = [("", sorted(os.listdir(root)))]
    while waiting:
        folder, names = waiting.pop()
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if path == NAME or is_part(name) or filter_.excludes(path):
                continue
            try:
                status = os.lstat(found.path(path))
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((path, _enter(found, path, filter_)))
                elif filter_.chosen(path):
                    _add(found, path, status, clock())
            except OSError as error:
                found.failures.append(failure_of(error))
    return found


def _enter(found: Scan, path: str, filter_: Filter) -> list[str]:
    found.folders.add(path)
    names = sorted(os.listdir(found.path(path)))
    if not names and filter_.chosen(path):
        found.empty.add(path)
    return names


def _add(found: Scan, path: str, status: os.stat_result, now: int) -> None:
    if stat.S_ISREG(status.st_mode):
        found.files[path] = local_of(status, now)
    elif stat.S_ISLNK(status.st_mode):
        found.others[path] = "a symbolic link, which is not followed"
    else:
        found.others[path] = "no regular file"


def local_of(status: os.stat_result, now: int) -> Local:
    """Return what *status* says about a file, which is read at the time *now*, in nanoseconds."""
    mode = stat.S_IMODE(status.st_mode) & 0o777 if os.name == "posix" else None
    fresh = now - status.st_mtime_ns < _GRANULARITY
    return Local(status.st_size, status.st_mtime_ns, mode, fresh)


def is_part(name: str) -> bool:
    """Say whether *name* is that of a download that is under way, or was interrupted."""
    return name.startswith(".pymdc-") and name.endswith(".part")
