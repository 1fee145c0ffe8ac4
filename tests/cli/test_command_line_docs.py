"""docs/command-line.rst: its reference is that of --help."""

from __future__ import annotations

import re

from processes import ROOT
from verb_reference import common_options, section, verbs

from pymdc._cli.failures import Code

DOCS = (ROOT / "docs" / "command-line.rst").read_text(encoding="utf-8")


def test_reference_has_every_verb_and_option() -> None:
    assert common_options() in DOCS
    for name, command in verbs().items():
        assert f"\n{section(name, command)}" in DOCS, name


def test_exit_codes_are_in_the_docs() -> None:
    stated = [int(code) for code in re.findall(r"^``(\d+)``  ", DOCS, re.MULTILINE)]
    assert stated == [*Code]
