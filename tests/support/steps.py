"""What may come between two steps of a function: a signal handler, another thread, a fork."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def at_each_step(function: Callable[[], Any], interrupt: Callable[[], None]) -> list[Any]:
    """Call *function* with *interrupt* before its first step, before its second, up to the last.

    A step is an instruction of the interpreter. Return what the function returned each time.
    """
    left, values = 0, list[Any]()

    def step(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                interrupt()
        return step

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # which Python 3.12 asks of the frame that traces
    sys.settrace(step)
    try:
        function()  # Python 3.13 tells the steps of a function that was traced before
        while left <= 0:
            left = len(values) + 1
            values.append(function())
    finally:
        sys.settrace(before)
    return values
