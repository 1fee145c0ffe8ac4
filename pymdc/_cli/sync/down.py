"""From a bucket to a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from pymdc import Call
from pymdc._cli.failures import Code, Failure
from pymdc._cli.sync.manifest import NAME, Manifest, check_path
from pymdc._cli.sync.options import Options
from pymdc._cli.sync.place import Folder
from pymdc._cli.sync.plan import Fetching, Step
from pymdc._cli.sync.remote import Content, Remote
from pymdc._cli.sync.report import Report
from pymdc._cli.sync.scan import Scan, is_part, scan
from pymdc._cli.sync.transfers import Callback, Progress, transfer
from pymdc._cli.sync.tree import Entry, Tree, parents, parents_of
from pymdc.exceptions import unwrap


@dataclass
class Down:
    """Makes the folder ``options.dest`` like the folder *prefix* of the bucket *remote*."""

    remote: Remote
    prefix: str
    options: Options
    report: Report
    _failed: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Fetch what is to be fetched, and remove what the bucket does not have."""
        tree = self._tree()
        found = self._scan()
        self.report.scanned(found)
        gone = {path for path in found.files if path not in tree.files}
        if self._deletes:
            size = sum(found.files[path].size for path in gone)
            self.options.confirm(gone, size, self.report.out, is_empty=not tree.files)
        folder, plan = Folder(found), self._plan(found, tree)
        if not self.options.real:
            self._tell(plan, gone)
            return
        if self._deletes:
            gone -= self._clear_way(folder, gone, tree)
        self._fetch(plan, folder)
        for path in sorted(tree.folders):
            self._try(folder.make_folder, path)
        if self._deletes:
            self._remove(folder, gone, tree)
        elif self.options.delete:
            self.report.note("nothing is removed, since not everything could be fetched")
        if not self.report.failures:
            folder.close()

    @property
    def _deletes(self) -> bool:
        """Whether to remove something: only if all could be read and fetched."""
        return self.options.delete and not self.report.failures

    def _scan(self) -> Scan:
        dest = self.options.dest
        if self.options.real:
            os.makedirs(dest, exist_ok=True)
        elif not os.path.lexists(dest):
            return Scan(dest)
        return scan(dest, self.options.filter)

    def _tree(self) -> Tree:
        """Return the tree that the folder is to have."""
        state, contents = self.remote.read(), self.remote.contents()
        manifest = state.manifest
        tree = manifest.tree.below(self.prefix)
        if not state.present:
            tree = tree if self.prefix else tree_of(contents, self.report)
        elif others := len(strangers(manifest, contents)):
            what = "file in the bucket is" if others == 1 else "files in the bucket are"
            self.report.note(f"{others:,} {what} of no sync, and not fetched; see pymdc ls")
        is_empty = not (tree.files or tree.folders or self.prefix in manifest.tree.folders)
        if self.prefix and is_empty:
            raise Failure(f"there is nothing in {self.options.source}", Code.NOT_FOUND)
        chosen = self.options.filter.chosen
        files = {path: entry for path, entry in tree.files.items() if chosen(path)}
        for path in [path for path, entry in files.items() if entry.hash not in contents]:
            self._fail(path, Failure("its content is not in the bucket any more", Code.NOT_FOUND))
        return Tree(files, {path for path in tree.folders if chosen(path)})

    def _plan(self, found: Scan, tree: Tree) -> Fetching:
        return Fetching(found, tree.files, checksum=self.options.checksum)

    def _tell(self, plan: Fetching, gone: Iterable[str]) -> None:
        for step in chain(plan.same(self._fail), plan.other(self._failed)):
            self.report.planned(step)
        if self._deletes:
            for path in sorted(gone):
                self.report.step("-", path)

    def _clear_way(self, folder: Folder, gone: set[str], tree: Tree) -> set[str]:
        """Remove files where folders are to be, and folders where files are to be."""
        taken = parents(tree.files) | parents(tree.folders) | tree.folders

        def is_in_file(path: str) -> bool:
            return any(it in tree.files for it in (path, *parents_of(path)))

        blocking = {path for path in gone if path in taken or is_in_file(path)}
        for path in sorted(blocking):
            self._remove_file(folder, path)
        folder.remove_folders(is_in_file)
        return blocking

    def _fetch(self, plan: Fetching, folder: Folder) -> None:
        for step in plan.same(self._fail):
            if self._try(folder.finish, step.path, step.entry):
                self.report.unchanged += 1
        steps = [*plan.other(self._failed)]
        self._download([step for step in steps if step.sign != "="], folder, self.options.jobs)
        again = []
        for step in steps:
            if step.sign == "=":
                try:
                    folder.copy(step.like, step.path, step.entry)
                except (OSError, Failure):
                    again.append(step)
                else:
                    self._done(step)
        # One at a time: some may have the same content.
        self._download(again, folder, jobs=1)

    def _download(self, steps: list[Step], folder: Folder, jobs: int) -> None:
        def begin(step: Step, callback: Callback, progress: Progress) -> Call:
            folder.check(step.path)
            file_hash = step.entry.hash
            to, files = folder.staged(file_hash), self.remote.files
            call: Call = files.download(file_hash, None, callback, to=to, progress=progress)
            return call

        def end(step: Step, value: Any) -> None:
            folder.place(unwrap(value)["path"], step.path, step.entry)
            self._done(step)

        self.report.names = [step.path for step in steps]
        transfer(steps, self.report, jobs, begin, end, self._fail)

    def _remove(self, folder: Folder, gone: Iterable[str], tree: Tree) -> None:
        for path in sorted(gone):
            self._remove_file(folder, path)
        needed = parents(tree.files) | parents(tree.folders) | tree.folders
        chosen = self.options.filter.chosen
        folder.remove_folders(lambda path: path not in needed and chosen(path))

    def _remove_file(self, folder: Folder, path: str) -> None:
        if self._try(folder.remove, path):
            self.report.step("-", path)

    def _done(self, step: Step) -> None:
        self.report.step(step.sign, step.path, **step.entry._asdict())

    def _try(self, function: Callable[..., object], path: str, *arguments: Any) -> bool:
        """Call *function* with *path*; return whether it succeeded."""
        try:
            function(path, *arguments)
        except Exception as error:  # noqa: BLE001  # the other files go on
            self._fail(path, error)
            return False
        return True

    def _fail(self, path: str, error: Exception) -> None:
        self._failed.add(path)
        self.report.fail(path, error)


def strangers(manifest: Manifest, contents: Mapping[str, Content]) -> dict[str, Content]:
    """Return those *contents* that no sync has put into the bucket."""
    named = manifest.tree.hashes | manifest.unneeded.keys()
    return {it: each for it, each in contents.items() if it not in named and each.name != NAME}


def tree_of(contents: Mapping[str, Content], report: Report) -> Tree:
    """Return the tree of a bucket to which nothing was synced: its files, by their names.

    Of those with the same name it has the one that was uploaded first last.
    """
    tree = Tree()
    for file_hash, content in contents.items():
        name = content.name
        try:
            if "/" in check_path(name) or is_part(name):
                raise ValueError
        except ValueError:
            report.note(f"{name!r} is no name of a file here, and is not fetched")
            continue
        if name in tree.files:
            report.note(f"{name}: several files have this name, and the newest is fetched")
        mtime = _nanoseconds(content.created)
        tree.files[name] = Entry(file_hash, content.size, mtime, mode=None)
    return tree


def _nanoseconds(iso: str | None) -> int | None:
    try:
        seconds = datetime.fromisoformat((iso or "").replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
    return int(seconds * 1000) * 1_000_000
