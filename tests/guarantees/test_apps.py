"""Programs with their own event loop stay responsive during calls."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import MINUTE, ROOT, python

LATE = 5000  # milliseconds; an upload that held the loop would hold it till its end


def test_asyncio_loop_stays_responsive_during_uploads(tmp_path: Path) -> None:
    done = python(ROOT / "examples" / "asyncio_app.py", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.endswith("went up and came back, byte for byte.\n")
    report = re.search(r"the loop ticked (\d+) times, (\d+) ms late at most", done.stdout)
    assert report
    assert int(report[1]) > 1
    assert int(report[2]) < LATE


@pytest.fixture
def screen() -> Iterator[str]:
    """Give the name of a virtual screen."""
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no tkinter")
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with open(read) as ready:
            yield f":{ready.readline().strip()}"
        server.terminate()
        server.wait(MINUTE)


def test_tk_window_stays_responsive_during_an_upload(screen: str, tmp_path: Path) -> None:
    done = python(ROOT / "examples" / "tk_app.py", "--demo", cwd=tmp_path, env={"DISPLAY": screen})
    assert (done.stderr, done.returncode) == ("", 0)
    assert "photo.jpg: 20000000 bytes went up.\n" in done.stdout
    report = re.search(r"Success: the window was never more than (\d+) ms late", done.stdout)
    assert report
    assert int(report[1]) < LATE


def test_tk_window_without_a_screen_says_so() -> None:
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no tkinter")
    done = python(ROOT / "examples" / "tk_app.py", env={"DISPLAY": ""})
    assert (done.stdout, done.returncode) == ("", 1)
    assert re.fullmatch("No window can be opened: .*\n", done.stderr)
