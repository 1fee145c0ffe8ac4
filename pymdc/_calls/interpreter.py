"""Whether this is the main interpreter, and what that means for threads."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # the second up to Python 3.12
        with suppress(ImportError):
            interpreters = import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


# A sub-interpreter refuses daemon threads, or kills the process if one is left when it ends. Its
# threads are therefore not daemons; Python waits for them, so they end as soon as they are idle.
DAEMONS = _is_main()
IDLE_SECONDS = 5.0 if DAEMONS else 0.0
