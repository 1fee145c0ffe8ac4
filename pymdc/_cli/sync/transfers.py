"""Files are sent or fetched, several at a time, each with a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from pymdc import Call
from pymdc._cli.parallel import each
from pymdc._cli.progress import bars, finish
from pymdc._cli.sync.plan import Step
from pymdc._cli.sync.report import Report
from pymdc._progress_bar import Line

Callback = Callable[[Any], object]
Progress = Callable[[int, "int | None"], None]
# Starts the transfer of a file.
Begin = Callable[[Step, Callback, Progress], Call]
# Does the rest, with the answer; the transfer has failed if it raises.
End = Callable[[Step, Any], object]
Failed = Callable[[str, Exception], object]


def transfer(
    steps: Iterable[Step], report: Report, jobs: int, begin: Begin, end: End, failed: Failed
) -> None:
    """Begin and end each of *steps*, at most *jobs* at a time; tell *failed* what went wrong."""
    running: dict[str, Line] = {}
    with bars(report.session, report.names) as drawn:

        def start(step: Step, callback: Callback) -> Call:
            bar = running[step.path] = drawn.begin(step.path, step.entry.size)
            return begin(step, callback, bar)

        with closing(each(steps, start, jobs)) as calls:
            for step, answer, error in calls:
                bar = running.pop(step.path, None)
                try:
                    end(step, error or answer)
                except Exception as exception:  # noqa: BLE001  # the other files go on
                    if bar:
                        bar.end()
                    failed(step.path, exception)
                    continue
                if bar:
                    finish(bar, step.entry.size)
                report.size += step.entry.size
