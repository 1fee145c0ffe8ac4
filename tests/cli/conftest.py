"""The command line, run in the process of the test; `program` runs it in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, Program, Verb
from processes import MINUTE, ROOT
from terminal import Tty

from pymdc._cli.program import run
from pymdc.bridge import Bridge
from pymdc.testing import Account


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the working directory, of somebody who has not signed in."""
    working = tmp_path / "work"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYMDC_ENDPOINT", "")  # and so what a verb sets is taken back
    monkeypatch.delenv("PYMDC_PRIVATE_KEY", raising=False)
    return working


@pytest.fixture
def signed_in(
    folder: Path, bridge: Bridge, account: Account, monkeypatch: pytest.MonkeyPatch
) -> Account:
    """Sign in by variables."""
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    monkeypatch.setenv("PYMDC_PRIVATE_KEY", account.key_pair.get_private_key())
    return account


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tty]:
    monkeypatch.setenv("TERM", "xterm-256color")
    with closing(Tty()) as terminal:
        yield terminal


@pytest.fixture
def pymdc(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Verb:
    """Run a verb; *stdin* is what it reads, or else it reads and shows messages on *tty*."""

    def verb(*arguments: str | Path, stdin: str | bytes = "", tty: Tty | None = None) -> Ended:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if tty:
                patch.setattr(sys, "stdin", tty.keyboard)
                patch.setattr(sys, "stderr", tty.screen)
            else:
                body = stdin.encode() if isinstance(stdin, str) else stdin
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))
            code = run([*map(str, arguments)])
        return Ended(code, *capsys.readouterr())

    return verb


@pytest.fixture
def program(folder: Path) -> Program:
    """Run ``python -m pymdc``."""

    def run_program(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "pymdc", *map(str, arguments)],
            env=environment,
            timeout=MINUTE,
            check=False,
            **{"capture_output": True, **options},
        )

    return run_program


@pytest.fixture
def photos(signed_in: Account, pymdc: Verb) -> str:
    """Make a bucket; give its id."""
    assert pymdc("mb", "photos").code == 0
    bucket: str = pymdc("buckets", "--json").records[0]["id"]
    return bucket
