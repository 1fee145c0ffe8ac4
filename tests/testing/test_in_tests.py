"""The page on tests: its examples are files that run, and every block of it passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from processes import ROOT, python
from pytest_runs import pytest_run
from readme import blocks

from pymdc.testing import TestBridge

PAGE = (ROOT / "docs" / "in-tests.rst").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "tests"
FIXTURES = "bridge", "account", "bucket", "bucket_factory", "pymdc_endpoint", "session_bridge"


def test_page_shows_the_examples() -> None:
    shown = blocks(PAGE, "python")
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text(encoding="utf-8") in shown, path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the blocks of the page, each as a file."""
    folder = tmp_path / "page"
    folder.mkdir()
    for number, text in enumerate(blocks(PAGE, "python")):
        is_script = "def test_" not in text
        name = "old_script.py" if "my.key" in text and is_script else f"test_{number}.py"
        body = f"def test_block():\n{re.sub('^', '    ', text, flags=re.M)}"
        (folder / name).write_text(body if is_script and name != "old_script.py" else text)
    return folder


def test_blocks_pass_on_two_workers_in_another_order(folder: Path) -> None:
    names = sorted((path.name for path in folder.glob("test_*.py")), reverse=True)
    done = pytest_run(folder, "-n", "2", *names)
    assert re.search(r" \d\d passed in ", done.stdout), done.stdout


def test_example_runs_with_unittest_alone() -> None:
    done = python(EXAMPLES / "test_with_unittest.py")
    assert done.stderr.endswith("\nOK\n"), done.stderr


def test_page_has_every_fixture_and_method() -> None:
    assert tuple(re.findall(r"^``(\w+)``  ", PAGE, re.MULTILINE)) == FIXTURES
    own = {name for name in vars(TestBridge) if not name.startswith("_")}
    assert all(f"``{name}" in PAGE for name in own)
