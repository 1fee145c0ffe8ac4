"""What is printed: text for people, a line of JSON a record for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from typing import Any

from pymdc._cli.failures import Failure
from pymdc._text import printable

Record = Mapping[str, Any]


class Output:
    """Prints results to stdout, and what is only for people to stderr."""

    def __init__(self) -> None:
        self.as_json = False
        self.quiet = False
        self.print_above: Callable[[str], None] | None = None  # while progress bars are drawn

    def record(self, record: Record, text: str | None = None) -> None:
        """Print *record* as JSON, or else *text*, unless it is None; its lines may be many."""
        if self.as_json:
            print(json.dumps(record))
        elif text is not None:
            print(text)

    def summary(self, text: str) -> None:
        """Print a line that says what was done, unless it is not wanted."""
        if self.is_chatty:
            print(text)

    def note(self, text: str) -> None:
        """Print to stderr what people should know, unless it is not wanted."""
        if self.is_chatty:
            self._print(text)

    def failure(self, failure: Failure) -> None:
        """Print *failure* to stderr."""
        if self.as_json:
            record = {"error": failure.message, "code": int(failure.code)}
            line = json.dumps(record | ({"remedy": failure.remedy} if failure.remedy else {}))
        else:
            line = f"pymdc: {printable(failure.message)}"
            if failure.remedy:
                line += "".join(f"\n  {printable(part)}" for part in failure.remedy.splitlines())
        self._print(line)

    def end_line(self) -> None:
        """End the line on the terminal that stderr is, if it is one."""
        if sys.stderr.isatty():
            self._print("")

    @property
    def is_chatty(self) -> bool:
        """Whether there may be more than results and errors."""
        return not (self.as_json or self.quiet)

    def _print(self, text: str) -> None:
        with suppress(OSError):  # nobody reads stderr
            if self.print_above:
                self.print_above(text)
            else:
                print(text, file=sys.stderr, flush=True)


def time_text(iso: str | None) -> str:
    """Return the local time of a time in ISO 8601: ``2026-11-22 07:54``."""
    if not iso:
        return "-"
    try:
        moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        return printable(iso)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def columns(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return *rows* as lines in columns; those whose numbers are in *right* are right-aligned."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = set(right)

    def line(row: list[str]) -> str:
        padded = (
            cell.rjust(width) if number in aligned else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [line(row) for row in cells]


def prepare_streams() -> None:
    """Have stdout and stderr show escapes for what their encoding lacks; none of the three is None.

    Python sets those to None that were closed when it started.
    """
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the program ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Send what is still in the buffer of stdout nowhere: its reader is gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
