"""A terminal whose screen a test reads."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from types import TracebackType

import pyte
from modes import PATIENCE


class Screen:
    """Runs *script* with its input, output and errors on a terminal of *columns*."""

    def __init__(
        self, script: str, environment: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO  # what a test types would move the cursor
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.raw = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        others = {"NO_COLOR", "COLUMNS", "LINES"}
        plain = {name: value for name, value in os.environ.items() if name not in others}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-u", "-c", script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**plain, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def rows(self) -> list[str]:
        """The rows of the screen that are not empty."""
        return [row.rstrip() for row in self._screen.display if row.strip()]

    @property
    def cursor_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def until(self, met: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the rows of the screen are what is *met*; return them."""
        while not met(self.rows):
            assert self._read(), f"the program has ended; on the screen: {self.rows}"
        return self.rows

    def to_the_end(self) -> list[str]:
        """Wait until the program has ended; return the rows."""
        while self._read():
            pass
        self.process.wait(PATIENCE)
        return self.rows

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, f"nothing came in {PATIENCE} s; on the screen: {self.rows}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # every process has closed the terminal
            return False
        self.raw += data
        self._stream.feed(data)
        return True
