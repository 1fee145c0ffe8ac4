"""What the programs that run for minutes share: the seed of a run, and a look at the log."""

from __future__ import annotations

import faulthandler
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|WARNING) ")


@contextmanager
def seeded(variable: str, seconds: float) -> Iterator[int]:
    """Give the seed in *variable*, or a random one, and print it; end a run that takes longer."""
    given = os.environ.get(variable)
    seed = int(given) if given else secrets.randbelow(10**6)
    print(f"\n{variable}={seed}")
    faulthandler.dump_traceback_later(seconds, exit=True)
    yield seed
    faulthandler.cancel_dump_traceback_later()


def wrong_lines(log: Path) -> list[str]:
    """Return the lines of the log that the bridge did not mean to write."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if not _LINE.match(line)]
