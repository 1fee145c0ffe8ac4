"""What the user is told, and what was done."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from pymdc._cli.failures import Code, Failure, code_of, failure_of
from pymdc._cli.output import Output
from pymdc._cli.parallel import ENDS_ALL
from pymdc._cli.session import Session
from pymdc._cli.sync.plan import Step
from pymdc._cli.sync.scan import Scan
from pymdc._text import printable, size_text


@dataclass
class Report:
    """Counts what became of each file; *verb* is "send" or "fetch", *done* is "sent" or "fetched".

    Without *real*, nothing is done, and each step is printed. *names* are those of the bars.
    """

    session: Session
    verb: str
    done: str
    real: bool
    names: Collection[str] = ()
    moved: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    unchanged: int = 0
    size: int = 0
    failures: list[Failure] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)  # an attempt that begins anew fails again

    @property
    def out(self) -> Output:
        """Where to print."""
        return self.session.out

    def scanned(self, found: Scan) -> None:
        """Tell what in a folder takes no part."""
        for path, what in sorted(found.others.items()):
            self.note(f"{path}: {what}")
        for failure in found.failures:
            self.failures.append(failure)
            self.out.failure(failure)

    def note(self, text: str) -> None:
        """Tell what the user should know."""
        self.out.note(printable(text))

    def fail(self, path: str, error: Exception) -> None:
        """Tell what went wrong with a file; raise a failure if it would with the others as well."""
        failure = failure_of(error)
        if not re.search(f"(^|/){re.escape(path)}[: ]", failure.message):
            failure = failure.about(path)
        if failure.message not in self._told:
            self._told.add(failure.message)
            self.failures.append(failure)
            self.out.failure(failure)
        if failure.code in ENDS_ALL:
            remedy = "run the same command again, and it goes on from here"
            raise Failure(f"not all files were {self.done}", failure.code, remedy)

    def planned(self, step: Step) -> None:
        """Tell what would be done with a file."""
        if step.sign:
            like = step.like if step.like != step.path else "a file in the bucket"
            about = f"same content as {like}" if like else ""
            self.step(step.sign, step.path, about)
        else:
            self.unchanged += 1

    def step(self, sign: str, path: str, about: str = "", **record: object) -> None:
        """Count and tell a file that is, or would be, moved (``+``, ``~``, ``=``) or removed."""
        action = "remove" if sign == "-" else "copy" if sign == "=" else self.verb
        counted = self.removed if sign == "-" else self.moved
        key = path + about if sign == "-" else path
        if key in counted:  # it was told before the sync began anew
            return
        counted.add(key)
        text = None if self.real else printable(f"{sign} {path}{f' ({about})' if about else ''}")
        self.out.record({"path": path, "action": action, "done": self.real} | record, text)

    def end(self) -> Code:
        """Tell the counts; return the exit code."""
        moved, removed, failed = len(self.moved), len(self.removed), len(self.failures)
        if self.out.as_json:
            counts = {"unchanged": self.unchanged, "removed": removed, "bytes": self.size}
            self.out.record({self.done: moved} | counts | {"done": self.real})
        elif self.real:
            self.out.summary(
                f"{moved:,} {self.done}, {self.unchanged:,} unchanged,"
                f" {removed:,} removed, {size_text(self.size)}"
                + (f"; {failed:,} failed" if failed else "")
            )
        else:
            self.out.summary(f"{moved:,} to {self.verb}, {removed:,} to remove")
        return code_of(self.failures, done=1)
