"""How to sync, and the question before files are removed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pymdc._cli.failures import Failure
from pymdc._cli.output import Output
from pymdc._cli.questions import confirm
from pymdc._cli.sync.scan import Filter
from pymdc._text import count_text, printable, size_text

_SHOWN = 20  # lines before the question


@dataclass(frozen=True)
class Options:
    """With *delete*, the files are removed that the source does not have; *yes* is not to ask.

    With *checksum*, files are compared by their content. Without *real*, nothing is done.
    *source* and *dest* are what the user typed.
    """

    source: str
    dest: str
    delete: bool = False
    checksum: bool = False
    real: bool = True
    yes: bool = False
    jobs: int = 4
    filter: Filter = field(default_factory=Filter)

    def confirm(self, paths: Collection[str], size: int, out: Output, *, is_empty: bool) -> None:
        """Ask whether *paths* may be removed; a failure if not, or if nobody can be asked.

        If the source *is_empty*, it may be a disk that is not mounted: then asking is not enough.
        """
        if not paths or self.yes or not self.real:
            return
        what = f"{count_text(len(paths))}, {size_text(size)}"
        if is_empty:
            message = f"{self.source} is empty, and --delete would empty {self.dest} ({what})"
            raise Failure(message, remedy="if that is right, -y")
        out.note("\n".join(removal_lines(paths)))
        confirm(f"Remove {what}, from {self.dest}", yes=False)


def removal_lines(paths: Collection[str]) -> list[str]:
    """Return a line for each of *paths*, and a last line for those that are too many."""
    shown = [printable(f"- {path}") for path in sorted(paths)]
    if len(shown) > _SHOWN:
        shown[_SHOWN:] = [f"and {len(shown) - _SHOWN:,} more, which -n shows"]
    return shown
