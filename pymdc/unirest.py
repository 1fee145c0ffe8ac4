"""`timeout`, which scripts of 2016 set in unirest, the HTTP library of pymdc 0.0.1."""

from __future__ import annotations

from pymdc._default import set_timeout


def timeout(seconds: float) -> None:
    """Set the timeouts of the default client, to connect and to wait for bytes, to *seconds*.

    Raises ValueError if *seconds* is not a number above zero.
    """
    set_timeout(seconds)
