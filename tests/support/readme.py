"""The code blocks of README.rst, and how output is compared with the output shown there."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """A code block in a *language*, under the *heading* of a section."""

    heading: str
    language: str
    text: str


def all_blocks(readme: str) -> list[Block]:
    """Return the code blocks of *readme* in order, without indentation."""
    pattern = r"^(.+)\n[-=~]{3,}\n|^\.\. code-block:: (\w+)\n\n((?:(?:    .*)?\n)+)"
    heading, found = "", []
    for match in re.finditer(pattern, readme, re.MULTILINE):
        heading = match[1] or heading
        if match[2]:
            found.append(Block(heading, match[2], textwrap.dedent(match[3]).rstrip("\n") + "\n"))
    return found


def blocks(readme: str, language: str) -> list[str]:
    """Return the texts of the code blocks of *language* in *readme*."""
    return [block.text for block in all_blocks(readme) if block.language == language]


_CHANGES = {"bucket", "created", "expires", "key", "pubkeys", "token"}


def shape(line: str) -> Any:
    """Return *line*, or if it is an answer, the answer without the values that change."""
    try:
        return _stable(ast.literal_eval(line))
    except (SyntaxError, ValueError):
        return line


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
