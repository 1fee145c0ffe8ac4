"""Numbers as the JavaScript of 2016 read and wrote them."""

from __future__ import annotations

import math
import re

from pymdc.bridge.settings import MAX_NUMBER

# No text can be matched in two ways, which would take more than linear time.
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PREFIXED = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+")


def js_number(value: object) -> float:
    """Return the number that *value*, a number or a numeric text, stands for.

    Empty text is 0, and "0x1e" is 30. ValueError if *value* is not a number, or too large, or if
    its text is too long.
    """
    if isinstance(value, str) and len(value) <= MAX_NUMBER:
        text = value.strip() or "0"
        if _PREFIXED.fullmatch(text):
            value = int(text, 0)
        elif _DECIMAL.fullmatch(text):
            value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError("not a finite number")
    return result


def json_number(value: float | None) -> float | int | None:
    """Return *value* as JavaScript writes it to JSON: 10, not 10.0."""
    return int(value) if value is not None and value == int(value) else value
