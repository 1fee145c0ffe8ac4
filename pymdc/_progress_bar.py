"""Progress bars on the terminal: `progress_bar`, and those of the command line.

With rich a line has a bar; without rich it is plain text. Nothing is drawn unless stderr is a
terminal. No exception of this module reaches a transfer.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO, TypeAlias

from pymdc._text import printable, size_text

_INTERVAL = 0.1  # seconds between two drawings
_BAR = 30  # columns
_NARROWEST_BAR = 5  # columns; where there are fewer, none is drawn
_LONGEST_NAME = 40  # columns; of a longer one the end is shown
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_AMOUNT = len("100 % 123.4 MB 120 MB/s")


class Line:
    """The line of one transfer, of the file *name*, in the display of *progress_bar*."""

    def __init__(self, progress_bar: ProgressBar, name: str, total: int | None = None) -> None:
        self._progress_bar = progress_bar
        self.name = printable(name)
        self.done = 0
        self.total = total
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
        """The text after the bar: ``45 % 9 MB 96 MB/s``."""
        percent = ""
        if self.total is not None:  # which is 0 for an empty file
            part = 100 if self.done == self.total else 100 * self.done // max(1, self.total)
            percent = f"{part} % "
        speed = self.done / max(time.monotonic() - self._begun, 1e-3)
        return f"{percent}{size_text(self.done)} {size_text(float(f'{speed:.1e}'))}/s"


class ProgressBar:
    """Draws a line for each transfer that is given this object as ``progress``.

    The names have one width, which is that of the longest: of *names*, or of those that are drawn.
    """

    def __init__(self, names: Iterable[str] = (), *, is_drawn: bool = True) -> None:
        self._lock = threading.RLock()
        self._lines: list[Line] = []
        self._display: _Display | None = None
        self._next = 0.0
        self._is_drawn = is_drawn
        self._width = max((_columns(printable(name)) for name in names), default=0)

    def begin(self, name: str, total: int | None = None) -> Line:
        """Return the function to report the progress of a transfer of the file *name*."""
        line = Line(self, name, total)
        with suppress(Exception), self._lock:
            if self._is_drawn and not self._lines:
                self._display = _open_display(self._width)
            self._lines.append(line)
            self._next = 0.0
            self.draw()
        return line

    def draw(self) -> None:
        """Draw all lines, unless that was done a moment ago."""
        with self._lock:
            if self._display is not None and time.monotonic() >= self._next:
                self._display.draw(self._lines)
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
            display.draw(self._lines, ended=line if line.done == line.total else None)

    def print(self, text: str) -> None:
        """Print *text* to stderr, above the lines."""
        with self._lock:
            if self._display is None:
                print(text, file=sys.stderr, flush=True)
            else:
                self._display.draw(self._lines, text=text)

    def close(self) -> None:
        """Remove all lines, as Python ends: after Ctrl-C a transfer may still be under way."""
        if self._display is not None and self._lock.acquire(timeout=1):
            with suppress(Exception):
                self._display.draw([])
            self._display = None
            self._lock.release()

    def __repr__(self) -> str:
        return "pymdc.progress_bar"


Bar: TypeAlias = Callable[[Line, int], str]  # for a number of columns


class _Display:
    """Draws lines on *terminal*, with control sequences that every terminal knows.

    They are drawn below the cursor, so what others print does not destroy them, and is not
    destroyed by the next drawing.
    """

    def __init__(self, terminal: TextIO, width: int, bar: Bar | None) -> None:
        self._terminal = terminal
        self._width = width
        self._bar = bar

    def draw(
        self, lines: Sequence[Line], *, ended: Line | None = None, text: str | None = None
    ) -> None:
        """Replace what is after the cursor; *ended*, or *text*, is printed in its line."""
        columns, rows = _size(self._terminal)
        text = self._text(ended, columns) if ended else text
        above = "" if text is None else f"\r\x1b[K{text}\n"
        shown = self._texts(lines[: max(1, rows - 2)], columns)
        below = "".join(f"\n\r{text}" for text in shown)
        back = f"\x1b[{len(shown)}A\r" if shown else ""
        self._write(f"\x1b[J{above}{below}{back}")

    def _write(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()

    def _text(self, line: Line, columns: int) -> str:
        [text] = self._texts([line], columns)
        return text

    def _texts(self, lines: Sequence[Line], columns: int) -> list[str]:
        """Return the texts of *lines*: name, bar if there is room for one, and amount."""
        columns -= 1  # a text in the last one could begin another row
        room = max(1, min(_LONGEST_NAME, columns - _AMOUNT - 1))
        names = [_end_of(line.name, room) for line in lines]
        width = max([min(self._width, room), *map(_columns, names)], default=0)
        bar = min(_BAR, columns - width - _AMOUNT - 2)
        if self._bar is None or bar < _NARROWEST_BAR:
            rows = zip(lines, names, strict=True)
            return [_plain(line, name, width, columns) for line, name in rows]
        return [
            f"{_padded(name, width)} {self._bar(line, bar)} {line.amount}"
            for line, name in zip(lines, names, strict=True)
        ]


class _FinishedLines(_Display):
    """Prints lines that are complete, on a terminal that cannot draw one again."""

    def draw(
        self, lines: Sequence[Line], *, ended: Line | None = None, text: str | None = None
    ) -> None:
        """Print *ended*, or *text*."""
        if ended:
            columns, _ = _size(self._terminal)
            text = self._text(ended, columns)
        if text is not None:
            self._write(f"{text}\n")


def _size(terminal: TextIO) -> tuple[int, int]:
    """Return the columns and rows of *terminal*; one that was told no size says 0."""
    columns, rows = os.get_terminal_size(terminal.fileno())
    return columns or 80, rows or 24


def _rich_bar(console: Any, line: Line, columns: int) -> str:
    """Return a bar, which rich draws; without colours rich leaves out the part to be done."""
    from rich.progress_bar import ProgressBar

    # An empty file is complete as well.
    done, total = (1, 1) if line.done == line.total else (line.done, line.total)
    bar = ProgressBar(total, done, width=columns, animation_time=time.monotonic())
    with console.capture() as captured:
        console.print(bar, end="")
    drawn = str(captured.get())
    return drawn + " " * (columns - len(_COLOUR.sub("", drawn)))


def _open_display(width: int) -> _Display | None:
    """Return a display on stderr for names of *width*, or None if that is no terminal."""
    terminal = sys.stderr
    if terminal is None or not terminal.isatty():
        return None
    display = _FinishedLines if os.environ.get("TERM") in ("dumb", "unknown") else _Display
    try:
        from rich.console import Console  # it takes longer to import than pymdc
    except ImportError:
        return display(terminal, width, None)
    return display(terminal, width, partial(_rich_bar, Console(stderr=True)))


def _plain(line: Line, name: str, width: int, columns: int) -> str:
    return f"{_padded(name, width)} {line.amount}"[: max(0, columns)]


def _end_of(name: str, room: int) -> str:
    """Return *name*, or as much of its end as *room* columns hold."""
    if _columns(name) <= room:
        return name
    while name and _columns(name) >= room:
        name = name[1:]
    return f"…{name}"


def _padded(name: str, width: int) -> str:
    return name + " " * (width - _columns(name))


def _columns(text: str) -> int:
    alone = (char for char in text if not unicodedata.combining(char))
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in alone)


progress_bar = ProgressBar()
atexit.register(progress_bar.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=progress_bar.__init__)  # type: ignore[misc]  # a new lock
