"""A terminal that a test types into."""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

SHELL, PYTHON, MORE = "$ ", ">>> ", "... "
_WIDTH = 2000  # columns, so that no line is wrapped
_PRESS_AGAIN = 5  # seconds
_PRESSES = 12
_SIZE = struct.pack("HHHH", 50, _WIDTH, 0, 0)


class Terminal:
    """A shell in *folder*; *environment* is added to that of the tests."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        plain = {"TERM": "dumb", "NO_COLOR": "1", "PYTHON_BASIC_REPL": "1"}
        tty = os.ttyname(slave)
        # The first terminal that a session leader opens becomes its controlling terminal.
        shell = f"env PS1='{SHELL}' bash --noprofile --norc --noediting -i"
        self._shell = subprocess.Popen(
            ["bash", "-c", f"exec {shell} <{tty} >{tty} 2>&1"],
            cwd=folder,
            env={**os.environ, **environment, **plain},
            start_new_session=True,
        )
        self._slave = slave
        self._seen = ""

    def __enter__(self) -> Terminal:
        self.read_to(SHELL)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._slave)
        os.close(self._master)  # programs still running there get SIGHUP

    def type(self, line: str, *prompts: str, patience: float = 60) -> str:
        """Type *line*, wait for one of *prompts*, and return what was printed before it."""
        os.write(self._master, line.encode() + b"\n")
        printed = self.read_to(*prompts, patience=patience)
        echo, _, rest = printed.partition("\n")
        return rest if echo.strip() == line.strip() else printed

    def show(self, line: str, *prompts: str, patience: float = 60) -> str:
        """Type *line*, wait for one of *prompts*, and return all that the terminal shows then."""
        os.write(self._master, line.encode() + b"\n")
        return "".join(self._read_to(prompts, patience))

    def send(self, keys: bytes) -> None:
        """Send what keys do."""
        os.write(self._master, keys)

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C."""
        self.send(b"\x03")

    def interrupt(self, *ends: str) -> str:
        """Press Ctrl-C until something is printed, wait for one of *ends*; return what is before.

        Python drops a Ctrl-C that comes just before it reads a line.
        """
        for _ in range(_PRESSES):
            self.press_ctrl_c()
            if select.select([self._master], [], [], _PRESS_AGAIN)[0]:
                break
        return self.read_to(*ends)

    def read_to(self, *ends: str, patience: float = 60) -> str:
        """Wait until the output ends with one of *ends*; return the output before it."""
        return self._read_to(ends, patience)[0]

    def _read_to(self, ends: Sequence[str], patience: float) -> tuple[str, str]:
        """Wait until the output ends with one of *ends*; return the output before it, and that."""
        pattern = re.compile(f"(?:{'|'.join(map(re.escape, ends))})\\Z")
        while not (found := pattern.search(self._seen)):
            ready, _, _ = select.select([self._master], [], [], patience)
            assert ready, f"nothing more came in {patience} s; so far: {self._seen}"
            self._seen += os.read(self._master, 65536).decode().replace("\r", "")
        self._seen = ""
        return found.string[: found.start()], found[0]


class Tty:
    """A terminal for a program that runs in the process of the test.

    *keyboard* is what the program reads, and *screen* what it writes to.
    """

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        # Two files, as in a process: Python 3.14 refuses to reconfigure one that has been read.
        self.keyboard = open(slave, encoding="utf-8", closefd=False)  # noqa: SIM115  # closed below
        self.screen = io.TextIOWrapper(io.FileIO(slave, "w"), encoding="utf-8", write_through=True)

    def type(self, line: str) -> None:
        """Type *line*; it is read when the program asks."""
        self.send(line.encode() + b"\n")

    def send(self, keys: bytes) -> None:
        """Send what keys do; it is read when the program asks."""
        os.write(self._master, keys)

    def resize(self, columns: int) -> None:
        """Give the terminal another width."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def read(self) -> str:
        """Return what was shown since the last time."""
        shown = b""
        while select.select([self._master], [], [], 0)[0]:
            shown += os.read(self._master, 65536)
        return shown.decode().replace("\r", "")

    def close(self) -> None:
        """Close both ends."""
        self.keyboard.close()
        self.screen.close()
        os.close(self._master)
