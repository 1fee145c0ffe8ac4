"""The command line, ``pymdc``: a thin layer on the public API.

It knows nothing of the modules below `pymdc.api`, and nothing of the bridge.
"""

from __future__ import annotations

import logging
import sys

_NEEDED = ("click", "platformdirs", "rich")


def main() -> int:
    """Run the command in ``sys.argv``; return its exit code."""
    try:
        from pymdc._cli.program import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        # Not by the name of the distribution: on the index that may be somebody else's.
        install = f"{sys.executable} -m pip install '.[cli]'"
        message = f"pymdc: {error.name} is missing: {install} in a clone of the project"
        print(message, file=sys.stderr)
        return 1
    logging.getLogger("pymdc").addHandler(logging.NullHandler())  # else warnings are printed
    return run(sys.argv[1:])
