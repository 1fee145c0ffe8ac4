"""One server for all workers of a run of pytest."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import pytest


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this run have."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def shared(folder: Path, serve: Callable[[Path], AbstractContextManager[str]]) -> Iterator[str]:
    """Yield what *serve* yields; the worker that comes first calls it, and ends it last.

    *serve* gets a folder of its own, below *folder*.
    """
    folder.mkdir(exist_ok=True)
    told = folder / "told"
    with open(folder / "change", "w") as change, open(folder / "workers", "w") as workers:
        fcntl.flock(change, fcntl.LOCK_EX)
        if told.exists():
            fcntl.flock(workers, fcntl.LOCK_SH)
            fcntl.flock(change, fcntl.LOCK_UN)
            yield told.read_text()
            return
        with serve(Path(tempfile.mkdtemp(dir=folder))) as served:
            told.write_text(served)
            fcntl.flock(workers, fcntl.LOCK_SH)
            fcntl.flock(change, fcntl.LOCK_UN)
            try:
                yield served
                _wait_for_others(change, workers)
            finally:
                told.unlink()


def _wait_for_others(change: IO[str], workers: IO[str]) -> None:
    """Lock both files as soon as no other worker has the server.

    *change* is free meanwhile: a worker that has the server may ask for it once more.
    """
    while True:
        fcntl.flock(workers, fcntl.LOCK_EX)
        fcntl.flock(workers, fcntl.LOCK_UN)
        fcntl.flock(change, fcntl.LOCK_EX)
        try:
            fcntl.flock(workers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(change, fcntl.LOCK_UN)
        else:
            return
