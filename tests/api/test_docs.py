"""The pages for programmers: their blocks are run, and their lists are complete."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT
from readme import all_blocks, shape

import pymdc
from pymdc.bridge import Bridge

DOCS = ROOT / "docs"


class Checker(doctest.OutputChecker):
    """Compares answers without the values that change."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        lines = [[*map(shape, text.splitlines())] for text in (want, got)]
        return lines[0] == lines[1] or super().check_output(want, got, optionflags)


def run_session(text: str, variables: dict[str, Any]) -> str:
    """Run a session; return how its answers differ."""
    test = doctest.DocTestParser().get_doctest(text, variables, "session", None, None)
    test.globs, differences = variables, io.StringIO()
    runner = doctest.DocTestRunner(Checker(), verbose=False)
    runner.run(test, out=differences.write, clear_globs=False)
    return differences.getvalue()


def run_program(text: str, variables: dict[str, Any]) -> str:
    """Run a program; return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text, variables)
    return printed.getvalue()


@pytest.mark.parametrize("page", ["async", "errors", "progress"])
def test_blocks_of_page_do_what_they_say(
    page: str,
    bridge: Bridge,
    bucket: pymdc.api.Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYMDC_ENDPOINT", bridge.endpoint)
    Path("photo.jpg").write_bytes(bytes(20_000_000 if page == "progress" else 2_000))
    same_bucket = pymdc.api.Bucket(bucket.bucket_id, bucket.key_pair)
    variables: dict[str, Any] = {"pymdc": pymdc, "bucket": same_bucket}
    printed, ran = "", 0
    for block in all_blocks((DOCS / f"{page}.rst").read_text(encoding="utf-8")):
        if block.language == "text":
            assert printed == block.text
            printed = ""
        elif block.language == "python":
            assert not printed, f"not shown on the page: {printed}"
            session = block.text.startswith(">>>")
            printed = (run_session if session else run_program)(block.text, variables)
            ran += 1
    assert not printed
    assert ran >= 6


@pytest.mark.parametrize("page", ["async", "errors", "progress"])
def test_page_has_one_sentence_a_line(page: str) -> None:
    for line in (DOCS / f"{page}.rst").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in " =-.`":
            assert not re.search(r"\w\. [A-Z]", line), line
