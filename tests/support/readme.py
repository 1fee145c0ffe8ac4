"""The code blocks of the README and of the pages in docs/, and how output is compared with them.

A block after the comment ``.. not typed: REASON`` is left out.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from typing import Any

_BLOCK = re.compile(
    r"^(?P<heading>\S.*)\n(?:=|-|~){3,}\n"
    r"|(?P<left_out>^ *\.\. not typed: .*\n\n)?"
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n"
    r"(?:(?P=indent)    :caption: (?P<caption>.*)\n)?"
    r"(?:(?P=indent)    :.*\n)*\n"
    r"(?P<text>(?:(?:(?P=indent)    .*)?\n)+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A code block in a *language*, under the *heading* of a section."""

    heading: str
    language: str
    caption: str
    text: str


def all_blocks(page: str) -> list[Block]:
    """Return the code blocks of *page* in order, without indentation."""
    heading, found = "", []
    for match in _BLOCK.finditer(page):
        heading = match["heading"] or heading
        if match["language"] and not match["left_out"]:
            text = textwrap.dedent(match["text"]).rstrip("\n") + "\n"
            found.append(Block(heading, match["language"], match["caption"] or "", text))
    return found


def blocks(page: str, language: str) -> list[str]:
    """Return the texts of the code blocks of *language* in *page*."""
    return [block.text for block in all_blocks(page) if block.language == language]


@dataclass(frozen=True)
class Command:
    """A *line* for a shell, and the *output* that a page shows after it."""

    line: str
    output: str


def commands(block: Block) -> list[Command]:
    """Return the commands of a *block* of the language "console"."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [Command(*part.partition("\n")[::2]) for part in parts]


_CHANGES = {"bucket", "created", "expires", "key", "pubkeys", "token"}
_CHANGING = {
    "DATE": r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?",
    "HEX": r"\b[0-9a-f]{24,}\b",
    "SPEED": r"\b\d+(?:\.\d+)? [kKMG]?B/s",
}


_TRACEBACK = "Traceback (most recent call last):"
_LOG = re.compile(r"^(?:\S+Z (?:INFO|WARNING) .*|.*; retrying in .*)\n", re.MULTILINE)


def fits(shown: str, printed: str) -> bool:
    """Say whether *printed* is what a page has *shown*, where ``...`` stands for anything.

    Values that differ from run to run need not be equal, and lines of the log do not count.
    """
    printed = _LOG.sub("", printed)
    if shown.startswith(_TRACEBACK) and printed.startswith(_TRACEBACK):
        return shown.splitlines()[-1] == printed.splitlines()[-1]  # as in doctest
    if "..." in shown:
        pattern = re.escape(_replaced(shown)).replace(r"\.\.\.", "(?s:.*)")
        return re.fullmatch(pattern, _replaced(printed)) is not None
    return [*map(shape, shown.splitlines())] == [*map(shape, printed.splitlines())]


def _replaced(text: str) -> str:
    for name, pattern in _CHANGING.items():
        text = re.sub(pattern, name, text)
    return re.sub(" +$", "", text, flags=re.MULTILINE).rstrip("\n")


def shape(line: str) -> Any:
    """Return the shape of an answer, or another *line* without the values that change."""
    try:
        return _stable(ast.literal_eval(line))
    except (SyntaxError, ValueError):
        return _replaced(line)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        changes = _CHANGES | (
            {"id"} & value.keys() if value.get("id") != value.get("email") else set()
        )
        return [
            (key, type(part) if key in changes else _stable(part)) for key, part in value.items()
        ]
    if isinstance(value, list):
        return [_stable(part) for part in value]
    return value
