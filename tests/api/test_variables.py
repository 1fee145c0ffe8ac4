"""Invalid values of environment variables: the error names the variable."""

from __future__ import annotations

import pytest

import pymdc


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("PYMDC_TIMEOUT", "0", "timeout is"),
        ("PYMDC_TIMEOUT", "1,2,3", "timeout is"),
        ("PYMDC_TOTAL", "-1", "total is"),
        ("PYMDC_STALL", "inf", "stall is"),
        ("PYMDC_WORKERS", "0", "workers is 0; expected"),
        ("PYMDC_CHANNELS", "-3", "channels is -3; expected"),
        ("PYMDC_ENDPOINT", "ftp://x", "the endpoint is 'ftp://x'; expected"),
    ],
)
def test_invalid_value_of_variable_is_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    monkeypatch.setenv(variable, value)
    for make in (pymdc.api.Users("a@b.com").register, pymdc.api.Users("a@b.com").register):
        with pytest.raises(ValueError, match=text) as caught:
            make()
        assert "; the client was made from" in str(caught.value)
        assert variable in str(caught.value)
    monkeypatch.undo()
    assert isinstance(pymdc.api.Users("a@b.com").register(), pymdc.PymdcError)
