"""The commands of an operator, run in the process of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pymdc.bridge.admin.program import main


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    text: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


Admin = Callable[..., Done]


def admin_of(data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Admin:
    """Return a function that runs a command on the folder *data*, with *options*."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            status = main([*map(str, arguments), "--data", str(data), *options])
        except SystemExit as ended:  # the arguments are not understood, or --help
            status = int(ended.code or 0)
        return Done(status, *capsys.readouterr())

    return run
