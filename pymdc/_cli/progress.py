"""Progress bars on stderr, if that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from pymdc._cli.output import printable, size_text
from pymdc._cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_BAR = 30  # columns
_AMOUNT = len("100 % 123.4 MB 123 MB/s")
_NARROWEST_BAR = 5  # columns; where there are fewer, none is drawn
_LONGEST_NAME = 40  # columns; of a longer one the end is shown


class Bars:
    """A bar for each transfer; without *progress*, none are drawn."""

    def __init__(self, progress: Progress | None, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock

    def bar(self, name: str, size: int | None) -> Bar:
        """Draw a bar for the transfer of *size* bytes."""
        shown = _shown(name, _room(self._progress.console)) if self._progress else ""
        return Bar(self._progress, shown, size, self._clock)


class Bar:
    """The bar of one transfer, which begins now."""

    def __init__(
        self, progress: Progress | None, name: str, size: int | None, clock: Callable[[], float]
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._begun = clock()
        if progress:
            self._task = progress.add_task(name, total=size, amount="")

    def report(self, done: int, total: int | None) -> None:
        """Show that *done* bytes of *total* are done; called on a worker."""
        if self._progress:
            percentage = 100 * done / total if total else 0
            seconds = self._clock() - self._begun
            text = amount(done, percentage, done / seconds if seconds else None)
            self._progress.update(self._task, completed=done, total=total, amount=text)

    def finish(self, size: int) -> None:
        """Leave the finished bar on the screen, above those that move."""
        if self._progress:
            seconds = self._clock() - self._begun
            text = amount(size, 100, size / seconds if seconds else None)
            # An empty file is done as well.
            self._progress.update(self._task, completed=size or 1, total=size or 1, amount=text)
            this = [task for task in self._progress.tasks if task.id == self._task]
            self.remove()
            self._progress.console.print(self._progress.make_tasks_table(this))

    def remove(self) -> None:
        """Take the bar off the screen."""
        if self._progress:
            self._progress.remove_task(self._task)


@contextmanager
def bars(session: Session, names: Iterable[str]) -> Iterator[Bars]:
    """Draw bars for *names* while the block runs, if they are wanted and stderr is a terminal.

    What *session* prints to stderr meanwhile appears above them.
    """
    if not (session.progress and session.out.is_chatty and sys.stderr.isatty()):
        yield Bars(None, time.monotonic)
        return
    progress = _progress(names)
    session.out.print_above = partial(
        progress.console.print, markup=False, highlight=False, soft_wrap=True
    )
    try:
        # Where lines cannot be drawn again, only finished bars are.
        with nullcontext() if progress.console.is_dumb_terminal else progress:
            yield Bars(progress, time.monotonic)
    finally:
        session.out.print_above = None


def _room(console: Console) -> int:
    """Return how many columns there are for a name."""
    return max(1, min(_LONGEST_NAME, console.width - _AMOUNT - 1))


def _shown(name: str, room: int) -> str:
    """Return *name*, or as much of its end as there is *room* for."""
    from rich.cells import cell_len

    shown = printable(name)
    if cell_len(shown) <= room:
        return shown
    while cell_len(shown) >= room:
        shown = shown[1:]
    return f"…{shown}"


def _progress(all_names: Iterable[str]) -> Progress:
    """Return bars in columns: for *all_names*, a bar if there is room, and an amount."""
    # Not at the top: it takes longer than most verbs.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    width = max((cell_len(_shown(name, _room(console))) for name in all_names), default=0)
    bar = min(_BAR, console.width - width - _AMOUNT - 2)
    # Each has its width, so that a finished bar, which is printed alone, has the same columns.
    names, amounts = Column(min_width=width, no_wrap=True), Column(min_width=_AMOUNT, no_wrap=True)
    name = TextColumn("{task.description}", markup=False, table_column=names)
    after = TextColumn("{task.fields[amount]}", markup=False, table_column=amounts)
    return Progress(
        name,
        *([BarColumn(bar)] if bar >= _NARROWEST_BAR else []),
        after,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def amount(size: float, percentage: float, speed: float | None) -> str:
    """Return the text after a bar: ``100 % 12.4 MB 96 MB/s``."""
    rate = "" if speed is None else f" {size_text(float(f'{speed:.1e}'))}/s"
    return f"{percentage:.0f} % {size_text(size)}{rate}"
