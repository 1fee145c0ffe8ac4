"""Numbers as the JavaScript of 2016 read and wrote them."""

from __future__ import annotations

import pytest

from pymdc.bridge.js_number import js_number, json_number

NUMBERS = {
    "": 0.0,
    "  7 ": 7.0,
    "-1": -1.0,
    "+.5": 0.5,
    "1.": 1.0,
    "1.6e1": 16.0,
    "0x1e": 30.0,
    "0O17": 15.0,
    "0b101": 5.0,
}
NOT_NUMBERS = ["abc", "1_000", "nan", "inf", "-0x1", "1e400", "1 2", "\u0663", 10**400, True, []]
DIGITS = "1" * 10**6  # the bridge reads no text in more than linear time


@pytest.mark.parametrize("text", NUMBERS)
def test_number_in_text_is_read(text: str) -> None:
    assert js_number(text) == NUMBERS[text]


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_value_that_is_not_a_finite_number_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a (finite )?number"):
        js_number(value)


@pytest.mark.parametrize("form", ["%sx", "0x%sx", "-%s.x", "1e%sx", ".%sx", "%s", "0x%s", "1e-%s"])
def test_long_text_is_no_number(form: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        js_number(form % DIGITS)


def test_number_may_have_400_characters() -> None:
    assert js_number("1".rjust(400, "0")) == 1
    with pytest.raises(ValueError, match="not a number"):
        js_number("1".rjust(401, "0"))


@pytest.mark.parametrize(
    ("value", "written"), [(10.0, "10"), (0.5, "0.5"), (3, "3"), (None, "None"), (-2.0, "-2")]
)
def test_number_is_written_without_a_needless_fraction(value: float | None, written: str) -> None:
    assert str(json_number(value)) == written
