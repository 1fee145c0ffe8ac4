"""Interrupt a function between any two steps, as a signal handler or a thread may do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def at_each_step(function: Callable[[], Any], interrupt: Callable[[], None]) -> list[Any]:
    """Call *function* once for each of its steps, with *interrupt* called before that step.

    A step is a bytecode instruction. Return the value of each call.
    """
    remaining, values = 0, list[Any]()

    def step(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal remaining
        frame.f_trace_opcodes = True
        if event == "opcode":
            remaining -= 1
            if remaining == 0:
                interrupt()
        return step

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 needs it on the tracing frame too
    sys.settrace(step)
    try:
        function()  # Python 3.13 reports steps only of a function traced before
        while remaining <= 0:
            remaining = len(values) + 1
            values.append(function())
    finally:
        sys.settrace(before)
    return values
