"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

from servers import free_port

from pymdc.bridge import Bridge

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
MINUTE = 60
PROGRAM = "-m", "pymdc.bridge"


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
    program: Sequence[str] = PROGRAM,
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


class BridgeProgram:
    """A bridge in a process of its own, with one port and one log, however often it is started.

    *options* and *program* are for `bridge_process`; ``bridge`` has the endpoint.
    """

    def __init__(
        self, data: Path, log: Path, *options: str, program: Sequence[str] = PROGRAM
    ) -> None:
        self.bridge = Bridge()
        self.port = free_port()
        self.log = log
        self._data = data
        self._options = *options, "--port", str(self.port)
        self._program = program
        self._running = ExitStack()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process; return when it serves."""
        stderr = self._running.enter_context(self.log.open("a", encoding="utf-8"))
        running = bridge_process(self._data, *self._options, stderr=stderr, program=self._program)
        self.bridge.endpoint, self._process = self._running.enter_context(running)

    def kill(self) -> None:
        """Kill the process."""
        assert self._process is not None
        self._process.kill()
        self._running.close()

    def stop(self) -> int | None:
        """Send SIGTERM, unless it has ended; return its status, None if it was never started."""
        self._running.close()
        return None if self._process is None else self._process.returncode
