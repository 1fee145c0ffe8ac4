"""What scripts of 2016 could set in the HTTP library that came with pymdc 0.0.1."""

from __future__ import annotations

from pymdc._default import set_timeout


def timeout(seconds: float) -> None:
    """Let every call on the default client wait for *seconds*: to connect, and for each answer.

    Raises ValueError for what is no number of seconds above zero.
    """
    set_timeout(seconds)
