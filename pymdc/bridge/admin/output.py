"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from pymdc._text import printable, size_text


@dataclass(frozen=True)
class Report:
    """What a command did: *value* for programs, *text* for people.

    *sound* is false if the command found something wrong.
    """

    value: object
    text: str
    sound: bool = True

    def print(self, *, as_json: bool) -> None:
        """Print the report to stdout; what the terminal cannot show is escaped."""
        text = json.dumps(self.value, indent=2) if as_json else self.text
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


class Progress:
    """Shows on stderr, if that is a terminal, how much of a long command is done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._shown = ""

    def show(self, size: int, whole: int) -> None:
        """Show that *size* of *whole* bytes are done."""
        self.show_text(f"{size_text(size)} of {size_text(whole)}")

    def show_text(self, done: str) -> None:
        """Show what is done."""
        text = f"{self._doing}: {done}"
        if text != self._shown and sys.stderr.isatty():
            self._print(text)

    def close(self) -> None:
        """Remove what was shown."""
        if self._shown:
            self._print("")

    def _print(self, text: str) -> None:
        print(f"\r{text:{len(self._shown)}}\r", end="", file=sys.stderr, flush=True)
        self._shown = text


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return *rows* as text in columns; a column whose name begins with ``>`` is right-aligned."""
    names = [name.lstrip(">") for name in head]
    cells = [names, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    marks = [">" if name.startswith(">") else "<" for name in head]
    return "\n".join(
        "  ".join(
            f"{cell:{mark}{width}}" for cell, mark, width in zip(row, marks, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def time_text(milliseconds: int) -> str:
    """Return a time in UTC, ``2026-11-22 07:54``."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M")


def _cell(value: object) -> str:
    return "-" if value is None else printable(str(value))
