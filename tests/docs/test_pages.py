"""The README, typed by a newcomer: in order, in two terminals, in a fresh clone."""

from __future__ import annotations

import doctest
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import ROOT
from readme import Block, all_blocks, shape
from terminal import MORE, PYTHON, SHELL, Terminal

README = (ROOT / "README.rst").read_text(encoding="utf-8")
BRIDGE = "/metadisk. Open http://127.0.0.1:6382/\n"
TOX = "bin/tox"
WARNING = "; retrying in"  # a log line, which is shown on the terminal
TOKEN = "The token from the mail: "
MAILED = re.compile(
    r"^(?:Activate|New password for) \S+: (?:\S+/)?([0-9a-f]{64})\s*$", re.MULTILINE
)

OLD_SCRIPT = """
import pymdc

def show(result):
    print(result)

key_pair = pymdc.keypair.ECDSA(None, open("you.key").read())
pymdc.api.Buckets(key_pair).list(show).join()
"""

pytestmark = pytest.mark.skipif(
    os.environ.get("PIP_NO_INDEX") is not None, reason="the README installs from an index"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the checkout, without generated files."""
    made = shutil.ignore_patterns(".*_cache", ".git", ".tox", ".venv", "*.egg-info", "build")
    return Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=made))


@pytest.fixture
def _port() -> Iterator[None]:
    """Wait until no other test uses the port of the README."""
    with open("/tmp/pymdc-tests-readme.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Newcomer:
    """Types the blocks of the README: the bridge into one terminal, the rest into another."""

    def __init__(self, open_terminal: Callable[[], Terminal]) -> None:
        self._open_terminal = open_terminal
        self._setup_commands: list[str] = []  # at the beginning of the lesson
        self.differences: list[str] = []
        self._open()

    def _open(self) -> None:
        self._bridge_terminal, self._terminal = self._open_terminal(), self._open_terminal()
        self._prompt = SHELL

    def follow(self, block: Block) -> None:
        if block.language == "console":
            if self._prompt == PYTHON:
                self._terminal.type("exit()", SHELL)
                self._prompt = SHELL
            for command in block.text.split("$ ")[1:]:
                self._run(command.rstrip("\n").partition("\n")[0], block.heading)
            return
        if block.heading == "The next day":
            self.stop()
            self._open()
            for command in self._setup_commands:
                self._run(command, "")
        self._answer(block)

    def stop(self) -> None:
        """Stop the bridge."""
        self._bridge_terminal.press_ctrl_c()
        self._bridge_terminal.read_to(SHELL)

    def _run(self, command: str, heading: str) -> None:
        if heading == "The lesson":
            self._setup_commands.append(command)
        if "-m pymdc.bridge" in command:
            self._bridge_terminal.type(command, BRIDGE)
        elif command.endswith("/python"):
            self._terminal.type(command, PYTHON)
            self._prompt = PYTHON
        else:
            printed = self._terminal.type(command, SHELL, patience=180)
            status = self._terminal.type("echo $?", SHELL)
            if status != "0\n" or "rror" in printed:
                self.differences.append(f"{command}\n{printed}")

    def _answer(self, block: Block) -> None:
        for example in doctest.DocTestParser().get_examples(block.text):
            lines = example.source.splitlines()
            if len(lines) > 1 and lines[-1]:
                lines.append("")  # an empty line ends a block; the parser omits it
            printed = "".join(self._type(line) for line in lines)
            lines = [line for line in printed.splitlines() if WARNING not in line]
            if [*map(shape, example.want.splitlines())] != [*map(shape, lines)]:
                self.differences.append(f">>> {example.source}{example.want}here:\n{printed}")

    def _type(self, line: str) -> str:
        if TOKEN not in line:
            return self._terminal.type(line, PYTHON, MORE)
        self._terminal.type(line, "\n" + TOKEN)  # not the prompt in the echo of *line*
        mailed = None
        while mailed is None:  # other lines are of the log
            mailed = MAILED.search(self._bridge_terminal.read_to("\n"))
        return self._terminal.type(mailed[1], PYTHON)


@pytest.mark.usefixtures("_port")
def test_readme_blocks_work_as_typed(clone: Path) -> None:
    (clone / "your_old_script.py").write_text(OLD_SCRIPT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with ExitStack() as stack:
        newcomer = Newcomer(lambda: stack.enter_context(Terminal(clone, environment)))
        for block in all_blocks(README):
            if TOX not in block.text:  # tox runs these tests
                newcomer.follow(block)
        newcomer.stop()
    assert not newcomer.differences, "\n".join(newcomer.differences)


def test_readme_contains_each_command_once() -> None:
    consoles = [block.text for block in all_blocks(README) if block.language == "console"]
    assert len(consoles) == 5
    assert sum(TOX in text for text in consoles) == 1
    assert sum("-m pymdc.bridge" in text for text in consoles) == 1
