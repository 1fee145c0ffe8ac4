"""The scale and the figures of a measurement, the comparison of two sides, and the table."""

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
    """How much is measured; *size* and *memory* are in bytes, *folder* is on the disk."""

    folder: str
    pairs: int
    calls: int
    size: int
    memory: tuple[int, int, int]


@dataclass(frozen=True)
class Figures:
    """What was measured for a row; *figure* is compared with its bar."""

    figure: float
    spread: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Row:
    """One row of the table; without a *bar* it is informative."""

    name: str
    what: str
    bar: float | None
    measure: Callable[[Scale], Figures]
    unit: str = ""
    at_most: bool = False

    def verdict(self, figure: float | None) -> str:
        """Say whether *figure* reaches the bar; a *figure* of None does not."""
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
    """Measure both sides *count* times, alternating which side goes first."""
    measured = []
    for index in range(count):
        if index % 2:
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
    """Return *value* with two decimals below 10, one below 100, and none above."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{round(value, 2) + 0.0:.2f}"


def in_units(size: int) -> str:
    """Return *size*, in bytes, in MiB or GiB."""
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


def speed(size: int, work: Callable[[], object]) -> float:
    """Return the MB (10^6 bytes) a second at which *work* processes *size* bytes."""
    start = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - start)


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how often a second *work* does something that it does *count* times."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def result(row: Row, scale: Scale) -> Result:
    """Measure *row*; if that fails, the table shows the reason."""
    bar = "none" if row.bar is None else f"{row.bar:,g} {row.unit}".strip()
    if row.bar is not None:
        bar = f"at {'most' if row.at_most else 'least'} {bar}"
    try:
        figures = row.measure(scale)
    except Exception as error:  # noqa: BLE001  # the other rows are measured whatever failed
        traceback.print_exc(file=sys.stderr)
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        cells = (row.name, row.what, "failed", "none", bar, row.verdict(None), reason, "none")
        return Result(cells, row.bar is not None)
    figure = f"{number(figures.figure)} {row.unit}".strip()
    verdict = row.verdict(figures.figure)
    cells = (row.name, row.what, figure, figures.spread, bar, verdict, figures.ours, figures.theirs)
    return Result(cells, verdict == "no")


HEAD = ("row", "what", "median", "spread", "bar", "reached", "ours", "theirs")


def table(results: Iterable[Result]) -> str:
    """Return *results* as a reStructuredText table."""
    return text_table([HEAD, *(outcome.cells for outcome in results)])


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return *rows*, of which the first is the head, as a reStructuredText table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(cells, widths) for cells in rows]
    rule = "  ".join("=" * width for width in widths)
    return "\n".join((rule, lines[0], rule, *lines[1:], rule))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()
