"""What is measured, how two sides are compared, and the table of it."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class Scale:
    """How much is measured: *size* and *memory* are in bytes, *folder* lies on the disk."""

    folder: str
    pairs: int
    calls: int
    size: int
    memory: tuple[int, int, int]


@dataclass(frozen=True)
class Figures:
    """What a row came to; *figure* is what its bar is for."""

    figure: float
    spread: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Row:
    """One row; a *bar* of None makes it informative."""

    name: str
    what: str
    bar: float | None
    measure: Callable[[Scale], Figures]
    unit: str = ""
    at_most: bool = False

    def verdict(self, figure: float | None) -> str:
        """Say whether *figure*, None where there is none, is on the right side of the bar."""
        if self.bar is None:
            return "informative"
        if figure is None:
            return "no"
        return "yes" if (figure <= self.bar if self.at_most else figure >= self.bar) else "no"


@dataclass(frozen=True)
class Result:
    """A row's cells, and whether its bar was missed."""

    cells: tuple[str, ...]
    missed: bool


def pairs(
    ours: Callable[[], float], theirs: Callable[[], float], count: int
) -> list[tuple[float, float]]:
    """Measure both sides *count* times, in turns; which side is first alternates."""
    measured = []
    for turn in range(count):
        if turn % 2:
            other, mine = theirs(), ours()
        else:
            mine, other = ours(), theirs()
        measured.append((mine, other))
    return measured


def compared(measured: Iterable[Sequence[float]], unit: str) -> Figures:
    """Return the median of the ratios ours ÷ theirs, and the medians of both sides."""
    ours, theirs = zip(*measured, strict=True)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    sides = [f"{number(statistics.median(side))} {unit}" for side in (ours, theirs)]
    return Figures(statistics.median(ratios), spread(ratios), *sides)


def spread(values: Sequence[float]) -> str:
    """Return the smallest and the largest of *values*."""
    return f"{number(min(values))} to {number(max(values))}"


def number(value: float) -> str:
    """Return *value* with as many digits as tell something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{round(value, 2) + 0.0:.2f}"


def in_units(size: int) -> str:
    """Return *size*, in bytes, in MiB or GiB."""
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


def speed(size: int, work: Callable[[], object]) -> float:
    """Return at how many MB (of 10^6 bytes) a second *work* does its *size* bytes."""
    begun = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - begun)


def result(row: Row, scale: Scale) -> Result:
    """Measure *row*; where that fails, its reason stands in the table."""
    bar = "none" if row.bar is None else f"{row.bar:,g} {row.unit}".strip()
    if row.bar is not None:
        bar = f"at {'most' if row.at_most else 'least'} {bar}"
    try:
        found = row.measure(scale)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other rows go on
        traceback.print_exc(file=sys.stderr)
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        cells = (row.name, row.what, "failed", "none", bar, row.verdict(None), reason, "none")
        return Result(cells, row.bar is not None)
    figure = f"{number(found.figure)} {row.unit}".strip()
    verdict = row.verdict(found.figure)
    cells = (row.name, row.what, figure, found.spread, bar, verdict, found.ours, found.theirs)
    return Result(cells, verdict == "no")


HEAD = ("row", "what", "median", "spread", "bar", "reached", "ours", "theirs")


def table(results: Iterable[Result]) -> str:
    """Return *results* as a simple table of reStructuredText."""
    rows = [HEAD, *(outcome.cells for outcome in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(cells, widths) for cells in rows]
    rule = "  ".join("=" * width for width in widths)
    return "\n".join((rule, lines[0], rule, *lines[1:], rule))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()
