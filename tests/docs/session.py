"""docs/command-line.rst: its session is typed in a terminal; for ``tox -e docs``."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ROOT
from questions import type_and_answer
from readme import Block, all_blocks
from terminal import SHELL, Terminal

DOCS = (ROOT / "docs" / "command-line.rst").read_text(encoding="utf-8")
HOME = "/home/me"
CHANGING = (
    (r"\b[0-9a-f]{24,64}\b", "HEX"),
    (r"[\d.]+ [KMG]?B/s", "SPEED"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME"),
    (r"until \d\d:\d\d", "until TIME"),
)


@pytest.fixture
def _port() -> Iterator[None]:
    """Wait until no other test uses the port of the README, which is that of this session."""
    with open("/tmp/pymdc-tests-readme.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make the home of somebody who has three photos."""
    for number, size in (1, 12_400_000), (2, 20_000_000), (3, 8_600_000):
        (tmp_path / f"IMG_{number}.jpg").write_bytes(os.urandom(size))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("notes\n")
    program = tmp_path / "bin" / "pymdc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m pymdc "$@"\n')
    program.chmod(0o755)
    return tmp_path


def stable(text: str, home: Path) -> list[str]:
    """Return the lines of *text* without what changes; files are done in any order."""
    text = text.replace(str(home), HOME)
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    return sorted(filter(None, map(str.strip, text.splitlines())))


def session() -> list[Block]:
    return [block for block in all_blocks(DOCS) if block.heading == "The first files"]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of *block*, and what it prints."""
    for part in block.text.split("$ ")[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def typed(terminal: Terminal, command: str, bridge: Terminal) -> str:
    """Type *command*, answer its questions, and return all that the terminal shows."""
    return type_and_answer(terminal, command, lambda: bridge.read_to("\n").split()[-1])


@pytest.mark.usefixtures("_port")
def test_session_shows_what_the_docs_show(home: Path) -> None:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    variables = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "PYMDC_ENDPOINT": ""}
    variables["XDG_CONFIG_HOME"] = ""
    with Terminal(home, variables) as bridge, Terminal(home, variables) as terminal:
        try:
            differences = [*follow(bridge, terminal, home)]
        finally:
            bridge.press_ctrl_c()
            bridge.read_to(SHELL)
    assert not differences


def follow(bridge: Terminal, terminal: Terminal, home: Path) -> Iterator[tuple[str, str]]:
    """Type the session; yield each command that shows something else, with what it shows."""
    for block in session():
        for command, printed in commands(block):
            if command.startswith("pymdc serve"):
                shown = bridge.show(command, "6382/\n").partition("\n")[2]
            else:
                shown = typed(terminal, command, bridge)
            if stable(shown, home) != stable(printed, home):
                yield command, shown
