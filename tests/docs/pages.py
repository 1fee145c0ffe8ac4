"""The README and the pages, typed by a newcomer: in order, in two terminals, in a fresh clone.

`tox -e docs` runs this, on one Python: what is typed is the same on each, and `tox` tests the
installed wheel on each.
"""

from __future__ import annotations

import doctest
import fcntl
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT
from questions import type_and_answer
from readme import Block, Command, all_blocks, commands, fits
from terminal import MORE, PYTHON, SHELL, Terminal

# In the order in which a newcomer reads them; each begins where the one before ends.
START = [
    "README.rst",
    "docs/install.rst",
    "docs/first-file.rst",
    "docs/lesson.rst",
    "docs/next-day.rst",
    "docs/old-script.rst",
]
# In any order, after those.
PAGES = [
    "docs/folder.rst",
    "docs/share.rst",
    "docs/curl.rst",
    "docs/proxies-and-certificates.rst",
    "docs/one-rule.rst",
]
# Why the blocks of the others are not typed here.
OTHERS = {
    "docs/async.rst": "is run by api/test_docs.py",
    "docs/errors.rst": "is run by api/test_docs.py",
    "docs/progress.rst": "is run by api/test_docs.py",
    "docs/command-line.rst": "is typed by session.py",
    "docs/sync.rst": "is typed by cli/test_sync.py",
    "docs/http-api.rst": "is typed by bridge/test_http_api.py",
    "docs/in-tests.rst": "is run by testing/test_in_tests.py",
    "CONTRIBUTING.rst": "has the commands of the README, and others that take an hour",
    "docs/running-a-bridge.rst": "is for root on a machine of its own; see bridge/test_deploy.py",
    "docs/several-bridges.rst": "needs PostgreSQL and nginx, and ports that may be taken",
}
# What the pages begin with that do not start Python themselves.
NEXT_DAY = (ROOT / "docs" / "next-day.rst").read_text(encoding="utf-8")
PRELUDE = next(block for block in all_blocks(NEXT_DAY) if block.language == "python")
SERVE = "pymdc serve "
SERVING = "http://127.0.0.1:6382/\n"  # the end of the line that a bridge prints
HOME = "/home/me"  # in the pages
TOX = "bin/tox"
ACTIVATE = ". .venv/bin/activate"
TOKEN = "The token from the mail: "
MAILED = re.compile(
    r"^(?:Activate|New password for) \S+: (?:\S+/)?([0-9a-f]{64})\s*$", re.MULTILINE
)

pytestmark = pytest.mark.skipif(
    os.environ.get("PIP_NO_INDEX") is not None, reason="the README installs from an index"
)


class Newcomer:
    """Types the blocks of pages: the bridge into one terminal, the rest into another."""

    def __init__(self, clone: Path, terminals: ExitStack) -> None:
        self.clone, self._terminals = clone, terminals
        self._followed: set[str] = set()
        self._installed: set[str] = set()
        self._bridge: Terminal | None = None
        self._open()

    def _open(self) -> None:
        self._terminal, self._prompt = self._new_terminal(), SHELL

    def _new_terminal(self) -> Terminal:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {
            "PATH": path,
            "PYTHONPATH": "",
            "HOME": str(self.clone.parent),
            "XDG_CONFIG_HOME": "",
            "PYMDC_ENDPOINT": "",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",  # Python compiles what it imports
            "VIRTUAL_ENV_DISABLE_PROMPT": "1",
        }
        return self._terminals.enter_context(Terminal(self.clone, environment))

    def follow(self, name: str) -> list[str]:
        """Type the blocks of the page *name*, if it was not typed; return what differs from it."""
        self._differences: list[str] = []
        page = (ROOT / name).read_text(encoding="utf-8") if name not in self._followed else ""
        self._followed.add(name)
        for block in all_blocks(page):
            if block.caption and block.language != "console":
                (self.clone / block.caption).write_text(block.text)
            elif block.language == "console":
                self._type_commands(commands(block))
            elif block.language == "python":
                self._answer(block)
        return self._differences

    def stop(self) -> None:
        """Stop the bridge."""
        if self._bridge:
            self._bridge.press_ctrl_c()
            self._bridge.read_to(SHELL)
            self._bridge = None

    def _type_commands(self, block: list[Command]) -> None:
        """Type a block into the terminal that it is for; those that begin there open it."""
        if block[-1].line.startswith(SERVE):
            self.stop()
            self._bridge = self._new_terminal()
            for command in block[:-1]:
                self._run(command, self._bridge)
            printed = self._bridge.type(block[-1].line, SERVING) + SERVING
            shown = "".join(block[-1].output.partition(SERVING)[:2])  # what follows comes later
            self._compare(Command(block[-1].line, shown), printed)
            return
        if block[0].line == ACTIVATE:
            self._open()
        for command in block:
            if self._prompt == PYTHON:
                self._terminal.type("exit()", SHELL)
            self._prompt = PYTHON if command.line == "python" else SHELL
            if self._prompt == PYTHON:
                self._terminal.type(command.line, PYTHON)
            else:
                self._run(command, self._terminal)

    def _run(self, command: Command, terminal: Terminal) -> None:
        line = command.line
        if TOX in line or line in self._installed:  # tox runs these tests
            return
        if "pip install" in line:
            self._installed.add(line)
        printed = self._typed(terminal, line)
        status = terminal.type("echo $?", SHELL)
        self._compare(command, printed)
        if status != "0\n" or (not command.output and "rror" in printed):
            self._differences.append(f"$ {line}\nended with {status}{printed}")

    def _typed(self, terminal: Terminal, line: str) -> str:
        """Type *line*, answer its questions, and return what the terminal shows after it."""
        return type_and_answer(terminal, line, lambda: self._mailed()[0].split()[-1], 180)

    def _compare(self, command: Command, printed: str) -> None:
        """Compare *printed* with the output that the page shows, if it shows one."""
        printed = printed.replace(str(self.clone.parent), HOME)
        if command.output and not fits(command.output, printed):
            self._differences.append(f"$ {command.line}\n{command.output}here:\n{printed}")

    def _answer(self, block: Block) -> None:
        if self._prompt == SHELL:
            self._terminal.type("python", PYTHON)
            self._prompt = PYTHON
            if block != PRELUDE:
                self._answer(
                    next(each for each in all_blocks(NEXT_DAY) if each.language == "python")
                )
        for example in doctest.DocTestParser().get_examples(block.text):
            lines = example.source.splitlines()
            if len(lines) > 1 and lines[-1]:
                lines.append("")  # an empty line ends a block; the parser omits it
            printed = "".join(self._type(line) for line in lines)
            if not fits(example.want, printed):
                self._differences.append(f">>> {example.source}{example.want}here:\n{printed}")

    def _type(self, line: str) -> str:
        if TOKEN not in line:
            return self._terminal.type(line, PYTHON, MORE)
        self._terminal.type(line, "\n" + TOKEN)  # not the prompt in the echo of *line*
        return self._terminal.type(self._mailed()[1], PYTHON)

    def _mailed(self) -> re.Match[str]:
        """Wait for a mail, which the bridge prints; its group is the token."""
        assert self._bridge
        mailed = None
        while mailed is None:  # other lines are of the log
            mailed = MAILED.search(self._bridge.read_to("\n"))
        return mailed


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout, without generated files."""
    made = shutil.ignore_patterns(".*_cache", ".git", ".tox", ".venv", "*.egg-info", "build")
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("new") / "clone", ignore=made))


@pytest.fixture(scope="module")
def _port() -> Iterator[None]:
    """Wait until no other test uses the port of the README."""
    with open("/tmp/pymdc-tests-readme.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def newcomer(clone: Path, _port: None) -> Iterator[Newcomer]:
    with ExitStack() as terminals:
        somebody = Newcomer(clone, terminals)
        yield somebody
        somebody.stop()


@pytest.mark.parametrize("name", START + PAGES)
def test_page_works_as_typed(newcomer: Newcomer, name: str) -> None:
    for earlier in START[: START.index(name)] if name in START else START:
        newcomer.follow(earlier)
    differences = newcomer.follow(name)
    assert not differences, "\n".join(differences)


def test_every_page_with_commands_or_python_is_followed() -> None:
    pages = [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")]
    with_blocks = {
        path.relative_to(ROOT).as_posix()
        for path in pages
        if any(
            block.language in ("console", "python")
            for block in all_blocks(path.read_text(encoding="utf-8"))
        )
    }
    assert with_blocks == {*START, *PAGES, *OTHERS}


def test_installed_wheel_needs_four_packages_and_has_these_extras(newcomer: Newcomer) -> None:
    newcomer.follow("README.rst")
    [site] = (newcomer.clone / ".venv" / "lib").glob("python*/site-packages")
    [wheel] = importlib.metadata.distributions(name="metadisk-client-python", path=[str(site)])
    metadata: Any = wheel.metadata
    alone = [line for line in wheel.requires or [] if "extra ==" not in line]
    assert {re.split(r"\W", line)[0] for line in alone} == {"ecdsa", "six", "urllib3", "websockets"}
    assert {*metadata.get_all("Provides-Extra")} == {"all", "bridge", "cli", "fast", "postgres"}
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert not [name for name in metadata.get_all("Classifier") if name.startswith("License")]
    assert (wheel.read_text("METADATA") or "").endswith(
        (newcomer.clone / "README.rst").read_text(encoding="utf-8")
    )
