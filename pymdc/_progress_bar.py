"""`progress_bar`, which draws a line for each transfer on the terminal.

With rich the line has a bar; without rich it is plain text. Nothing is drawn unless stderr is a
terminal. No exception of this module reaches a transfer.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO, TypeAlias

_INTERVAL = 0.1  # seconds between two drawings
_BAR = 30  # columns
_NARROW = 70  # columns; a narrower terminal has no room for bars
_UNITS = ("B", "KB", "MB", "GB", "TB")


class Line:
    """The line of one transfer, of the file *name*, in the display of *progress_bar*."""

    def __init__(self, progress_bar: ProgressBar, name: str) -> None:
        self._progress_bar = progress_bar
        self.name = "".join(char if char.isprintable() else "?" for char in name)
        self.done = 0
        self.total: int | None = None
        self._begun = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        """Show that *done* bytes of *total* are done."""
        self.done, self.total = done, total
        with suppress(Exception):
            self._progress_bar.draw()

    def end(self) -> None:
        """Leave the line on the screen if the transfer is complete, else remove it."""
        with suppress(Exception):
            self._progress_bar.end(self)

    @property
    def amount(self) -> str:
        """The text after the bar: ``45 % 9.0 MB 96 MB/s``."""
        percent = "" if self.total is None else f"{100 * self.done // max(1, self.total)} % "
        seconds = time.monotonic() - self._begun
        return f"{percent}{_size(self.done)} {_size(self.done / max(seconds, 1e-3))}/s"


class ProgressBar:
    """Draws a line for each transfer that is given this object as ``progress``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lines: list[Line] = []
        self._display: _Display | None = None
        self._next = 0.0

    def begin(self, name: str) -> Line:
        """Return the function to report the progress of a transfer of the file *name*."""
        line = Line(self, name)
        with suppress(Exception), self._lock:
            if not self._lines:
                self._display = _open_display()
            self._lines.append(line)
            self._next = 0.0
            self.draw()
        return line

    def draw(self) -> None:
        """Draw all lines, unless that was done a moment ago."""
        with self._lock:
            if self._display is not None and time.monotonic() >= self._next:
                self._display.draw(self._lines, None)
                self._next = time.monotonic() + _INTERVAL

    def end(self, line: Line) -> None:
        """End the transfer of *line*; after the last one, leave the terminal as it was."""
        with self._lock:
            self._lines.remove(line)
            display = self._display
            if display is None:
                return
            if not self._lines:
                self._display = None
            display.draw(self._lines, line if line.done == line.total else None)

    def close(self) -> None:
        """Remove all lines, as Python ends: after Ctrl-C a transfer may still be under way."""
        if self._display is not None and self._lock.acquire(timeout=1):
            with suppress(Exception):
                self._display.draw([], None)
            self._display = None
            self._lock.release()

    def __repr__(self) -> str:
        return "pymdc.progress_bar"


Render: TypeAlias = Callable[[Sequence[Line], int], list[str]]


class _Display:
    """Draws lines on *terminal*, with control sequences that every terminal knows.

    They are drawn below the cursor, so what others print does not destroy them, and is not
    destroyed by the next drawing. *render* makes texts of lines, for a number of columns.
    """

    def __init__(self, terminal: TextIO, render: Render) -> None:
        self._terminal = terminal
        self._render = render

    def draw(self, lines: Sequence[Line], ended: Line | None) -> None:
        """Replace what is after the cursor; *ended* is printed in its line."""
        size = os.get_terminal_size(self._terminal.fileno())
        columns = size.columns - 1  # a text in the last one could begin another row
        last = "" if ended is None else f"\r\x1b[K{self._render([ended], columns)[0]}\n"
        shown = self._render(lines[: max(1, size.lines - 2)], columns)
        below = "".join(f"\n\r{text}" for text in shown)
        back = f"\x1b[{len(shown)}A\r" if shown else ""
        self._terminal.write(f"\x1b[J{last}{below}{back}")
        self._terminal.flush()


def _plain(lines: Sequence[Line], columns: int) -> list[str]:
    return [_fit(line, columns) for line in lines]


def _rich(console: Any, lines: Sequence[Line], columns: int) -> list[str]:
    """Return lines with bars, which rich draws."""
    from rich import progress_bar, table, text

    if columns < _NARROW:
        return _plain(lines, columns)
    rows = table.Table.grid(padding=(0, 1))
    for _ in range(3):
        rows.add_column(no_wrap=True)
    for line in lines:
        # An empty file is complete as well.
        done, total = (1, 1) if line.done == line.total else (line.done, line.total)
        bar = progress_bar.ProgressBar(total, done, width=_BAR, animation_time=time.monotonic())
        rows.add_row(text.Text(line.name, overflow="ellipsis"), bar, line.amount)
    with console.capture() as captured:
        console.print(rows, width=columns)
    return str(captured.get()).splitlines()


def _open_display() -> _Display | None:
    """Return a display on stderr, or None if nothing can be drawn there."""
    terminal = sys.stderr
    if terminal is None or not terminal.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console  # it takes longer to import than pymdc
    except ImportError:
        return _Display(terminal, _plain)
    return _Display(terminal, partial(_rich, Console(stderr=True)))


def _fit(line: Line, columns: int) -> str:
    """Return the name and the amount of *line* in at most *columns*; the name is shortened."""
    room = columns - len(line.amount) - 1
    name = line.name
    while name and _columns(name) > room:
        name = name[1:]
    return f"{name} {line.amount}".strip()[: max(0, columns)]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _size(size: float) -> str:
    """Return *size* bytes in units of 1000: ``12 B``, ``1.5 MB``."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{1 if unit and size < 99.95 else 0}f} {_UNITS[unit]}"


progress_bar = ProgressBar()
atexit.register(progress_bar.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=progress_bar.__init__)  # type: ignore[misc]  # a new lock
