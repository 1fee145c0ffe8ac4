"""Questions to the user, on a terminal."""

from __future__ import annotations

import sys

import click

from pymdc._cli.failures import Failure
from pymdc._text import printable


def confirm(question: str, *, yes: bool) -> None:
    """Ask *question*, unless *yes*; a failure if the answer is no, or nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{question}? There is no terminal to ask on", remedy="-y does not ask")
    if not click.confirm(printable(question) + "?", err=True):
        raise Failure("nothing was changed")
