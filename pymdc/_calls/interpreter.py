"""Which interpreter this is: a sub-interpreter ends with its last thread, or not at all."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        with suppress(ImportError):
            interpreters = import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


# A sub-interpreter refuses daemon threads, or kills the process when one is there at its end. So
# its threads are no daemons, which are waited for, and they do not rest before they end.
DAEMONS = _is_main()
REST = 5.0 if DAEMONS else 0.0  # seconds
