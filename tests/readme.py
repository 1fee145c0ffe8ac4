"""Runs the Python blocks of README.rst, in the folder where it is started.

    python readme.py README.rst OUTBOX

OUTBOX is where the bridge puts its mails. Answers are compared by keys and types, other output
to the letter; what differs is printed, and the exit status is how much it is.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import email
import email.policy
import io
import re
import sys
import textwrap
from pathlib import Path
from typing import Any


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of *language* in *text*, without their indentation."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)"
    found = re.findall(pattern, text, re.MULTILINE)
    return [textwrap.dedent(block).rstrip("\n") + "\n" for block in found]


def shape(line: str) -> Any:
    """Return what a line of output is compared by."""
    try:
        return of(ast.literal_eval(line))
    except (SyntaxError, ValueError):
        return line


def of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [of(part) for part in value]
    return value if value is None or isinstance(value, bool) or value == "" else type(value)


def token_from(outbox: Path) -> str:
    """Return the activation token of the newest mail, as its reader would find it."""
    newest = max(outbox.iterdir(), key=lambda path: path.stat().st_mtime)
    mail = email.message_from_bytes(newest.read_bytes(), policy=email.policy.default)
    found = re.search(r"/activations/([0-9a-f]{64})", mail.get_content())
    assert found
    return found[1]


def run(readme: Path, outbox: Path) -> int:
    differences = 0
    names: dict[str, Any] = {"input": lambda prompt: token_from(outbox)}
    parser = doctest.DocTestParser()
    for block in blocks(readme.read_text(encoding="utf-8"), "python"):
        for example in parser.get_examples(block):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.source, "README.rst", "single"), names)
            wanted, got = example.want.splitlines(), printed.getvalue().splitlines()
            if [shape(line) for line in wanted] != [shape(line) for line in got]:
                differences += 1
                print(f">>> {example.source}README: {example.want}here:   {printed.getvalue()}")
    return differences


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2])))
