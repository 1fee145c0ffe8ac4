"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
MINUTE = 60


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with warnings as errors; return its output and its status."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=MINUTE,
        env=environment,
        check=False,
        **options,
    )


@contextmanager
def bridge_process(
    data: Path,
    *arguments: str,
    wrapper: Sequence[str] = (),
    program: Sequence[str] = ("-m", "pymdc.bridge"),
    stderr: int | IO[str] = PIPE,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``python -m pymdc.bridge`` on a free port; yield its endpoint and the process.

    A *wrapper* is a command that runs the one in its arguments, and *program* says what Python
    runs. *stderr* is for Popen.
    """
    command = [*wrapper, sys.executable, *program, "--port", "0", "--data", str(data)]
    with subprocess.Popen([*command, *arguments], stdout=PIPE, stderr=stderr, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1].rstrip("/"), process
        finally:
            process.terminate()
            process.communicate(timeout=MINUTE)
