"""A clock that can be advanced."""

from __future__ import annotations

import math
import time


class Clock:
    """The time of the system, and what it was advanced by; a call returns seconds since 1970."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock by *seconds*: tokens expire that are not valid for so long."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds!r}; expected zero or more")
        self._ahead += seconds

    def reset(self) -> None:
        """Set the clock back to the time of the system."""
        self._ahead = 0.0
