"""From a folder to a bucket."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymdc import Call
from pymdc._cli.failures import Failure
from pymdc._cli.sync.contents import below, entry_name, renamed, still_there, unneeded
from pymdc._cli.sync.manifest import NAME, Former, Manifest
from pymdc._cli.sync.options import Options
from pymdc._cli.sync.plan import Sending, Step, check_same
from pymdc._cli.sync.remote import Conflict, Content, Remote, State
from pymdc._cli.sync.report import Report
from pymdc._cli.sync.scan import Scan
from pymdc._cli.sync.transfers import Callback, Progress, transfer
from pymdc._cli.sync.tree import Tree
from pymdc.exceptions import BridgeError, unwrap

_TRIES = 5


@dataclass
class Up:
    """Makes the folder *prefix* of the bucket *remote* like the folder that was *found*.

    Only what the first attempt finds is *removable*, each path with its hash: other syncs may have
    added or changed files since then.
    """

    found: Scan
    remote: Remote
    prefix: str
    options: Options
    report: Report
    removable: set[tuple[str, str]] | None = None

    def run(self) -> None:
        """Send what is to be sent; begin anew if another sync changes the bucket meanwhile."""
        for number in range(_TRIES):
            try:
                state = self.remote.read()
                _Attempt(self, state, self.remote.contents()).run()
            except Conflict:
                self.report.note("another sync has changed the bucket meanwhile; looking again")
                time.sleep(random.uniform(0, number))
            else:
                return
        raise Failure("other syncs keep changing the bucket", remedy="try again when they are done")


class _Attempt:
    """One attempt, beginning with the *state* and the *contents* of the bucket."""

    def __init__(self, sync: Up, state: State, contents: dict[str, Content]) -> None:
        self._found, self._options, self._report = sync.found, sync.options, sync.report
        self._sync = sync
        self._state = state
        self._there = state.manifest.tree.below(sync.prefix)
        self._manifests = {it: entry for it, entry in contents.items() if entry.name == NAME}
        self._contents = {it: entry for it, entry in contents.items() if entry.name != NAME}
        self._new = Tree(folders=set(self._found.empty))
        self._report.names, self._report.unchanged = self._found.files, 0

    def run(self) -> None:
        """Ask, send the files, write the manifest, and remove, in this order."""
        gone, older = self._gone(), self._older(self._state.manifest)
        if self._deletes and self._sync.removable is None:
            self._ask(gone, older)
            self._sync.removable = {(path, self._there.files[path].hash) for path in gone}
        removable = self._sync.removable or set()
        gone = {path for path in gone if (path, self._there.files[path].hash) in removable}
        self._send()
        if not self._options.real:
            if self._deletes:
                self._tell_removal(gone, older)
            return
        if self._options.delete and not self._deletes:
            self._report.note("nothing is removed, since not everything could be sent")
        state = self._write(gone if self._deletes else set())
        self._rename(state)
        if self._deletes:
            self._tell_removal(gone, {})
            self._remove(state)
            self._tell_removal(set(), older)
        elif kept := 0 if self._options.delete else len(self._older(state.manifest)):
            what = "an older version is" if kept == 1 else f"{kept:,} older versions are"
            self._report.note(f"{what} kept in the bucket; --delete removes what is not needed")

    def _tell_removal(self, gone: set[str], older: dict[str, Former]) -> None:
        for path in sorted(gone):
            self._report.step("-", path)
        for former in older.values():
            self._report.step("-", former.path, "an older version")

    @property
    def _deletes(self) -> bool:
        """Whether to remove something: only if all could be read and sent."""
        return self._options.delete and not self._report.failures

    def _gone(self) -> set[str]:
        """Return the paths that are in the manifest, and not in the folder any more."""
        chosen = self._options.filter.chosen
        return {it for it in self._there.files if it not in self._found.files and chosen(it)}

    def _older(self, manifest: Manifest) -> dict[str, Former]:
        """Return the older versions in this folder that the bucket still has."""
        here = still_there(manifest.unneeded, self._contents)
        return below(here, self._sync.prefix, self._options.filter.chosen)

    def _ask(self, gone: set[str], older: dict[str, Former]) -> None:
        size = sum(self._there.files[path].size for path in gone)
        size += sum(self._contents[it].size for it in older)
        paths = gone | {f"{former.path} (an older version)" for former in older.values()}
        is_empty = not self._found.files
        self._options.confirm(paths, size, self._report.out, is_empty=is_empty)

    def _send(self) -> None:
        """Send the files, and add each to the new tree."""
        plan = Sending(
            self._found,
            self._there.files,
            self._contents,
            self._manifests,
            checksum=self._options.checksum,
        )
        for step in plan.unchanged():
            self._keep(step)
        if not self._options.real:
            for step in plan.changed(self._report.fail):
                self._report.planned(step)
            return
        twins: list[Step] = []
        self._upload(self._to_upload(plan.changed(self._report.fail), twins))
        there = self._new.hashes | self._contents.keys()
        for step in twins:
            if step.entry.hash in there:
                self._keep(step)
        # Those whose twin could not be sent, or had changed when it was.
        self._upload(step for step in twins if step.entry.hash not in there)

    def _to_upload(self, steps: Iterable[Step], twins: list[Step]) -> Iterator[Step]:
        """Yield the files to upload, and add those that wait for another's upload to *twins*."""
        for step in steps:
            if step.sign == "":
                self._keep(step)
            elif step.sign == "=":
                twins.append(step)
            else:
                yield step

    def _upload(self, steps: Iterable[Step]) -> None:
        report, jobs = self._report, self._options.jobs
        transfer(steps, report, jobs, self._begin, self._end, report.fail)

    def _begin(self, step: Step, callback: Callback, progress: Progress) -> Call:
        path, name = self._found.path(step.path), entry_name(step.path)
        files = self._sync.remote.files
        call: Call = files.upload(path, None, callback, name=name, progress=progress)
        return call

    def _end(self, step: Step, value: Any) -> None:
        check_same(self._found.path(step.path), self._found.files[step.path])
        entry = step.entry._replace(hash=unwrap(value)["hash"])
        self._keep(step._replace(entry=entry))

    def _keep(self, step: Step) -> None:
        """Add a file to the new tree: its content is in the bucket."""
        self._new.files[step.path] = step.entry
        if step.sign:
            self._report.step(step.sign, step.path, **step.entry._asdict())
        else:
            self._report.unchanged += 1

    def _write(self, gone: set[str]) -> State:
        """Have the bucket hold just one manifest, of the new tree."""
        old, remote = self._state.manifest, self._sync.remote
        chosen = self._options.filter.chosen
        folders = {it for it in self._there.folders if chosen(it)} if self._deletes else ()
        part = self._there.without(gone, folders).with_(self._new)
        tree = old.tree.with_below(self._sync.prefix, part)
        new = Manifest(tree, unneeded(old, tree, self._contents))
        if (new.tree, new.unneeded) == (old.tree, old.unneeded):
            return remote.tidy(self._state)
        state = remote.write(new, self._state)
        # A sync that read the old manifest may have removed them before it saw the new one.
        at_risk = self._new.hashes & old.unneeded.keys()
        if at_risk and at_risk - remote.contents().keys():
            raise Conflict
        return state

    def _rename(self, state: State) -> None:
        """Give contents the names of the paths that they have now, if only their paths changed."""
        old, new = self._state.manifest.tree, state.manifest.tree
        for file_hash, name in renamed(old, new, self._contents) if old != new else ():
            with suppress(BridgeError):  # an older bridge; the manifest has the path
                unwrap(self._sync.remote.files.rename(file_hash, name))

    def _remove(self, state: State) -> None:
        """Remove what no manifest names any more, and then the names of it in the manifest."""
        remote, left = self._sync.remote, dict(state.manifest.unneeded)
        older = self._older(state.manifest)
        for removed in remote.remove(older, state, self._options.jobs):
            del left[removed]
        if older:
            remote.write(Manifest(state.manifest.tree, left), state)
