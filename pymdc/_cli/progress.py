"""Progress bars on stderr, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pymdc._cli.session import Session
from pymdc._progress_bar import Line, ProgressBar


@contextmanager
def bars(session: Session, names: Iterable[str]) -> Iterator[ProgressBar]:
    """Draw bars for *names* while the block runs, if they are wanted.

    What *session* prints to stderr meanwhile appears above them.
    """
    is_wanted = session.progress and session.out.is_chatty and sys.stderr.isatty()
    drawn = ProgressBar(names if is_wanted else (), is_drawn=is_wanted)
    session.out.print_above = drawn.print
    try:
        yield drawn
    finally:
        session.out.print_above = None
        drawn.close()


def finish(bar: Line, size: int) -> None:
    """Leave *bar* on the screen: all *size* bytes are there."""
    bar(size, size)
    bar.end()
