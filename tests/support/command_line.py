"""What a verb of the command line printed, and the functions that run one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """What a verb printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Verb = Callable[..., Ended]
Program = Callable[..., "subprocess.CompletedProcess[bytes]"]
