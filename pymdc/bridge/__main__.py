"""The bridge as a program: ``python -m pymdc.bridge``."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from contextlib import closing

from pymdc._calls.waiting import Queue
from pymdc.bridge.settings import parser


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    options = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop: Queue[int] = Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: stop.put(number))
    try:
        from pymdc.bridge import Bridge

        bridge = Bridge(announce=_print_link, **vars(options))
        bridge.__enter__()
    except (ImportError, ValueError) as error:
        return _fail(str(error))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return _fail(f"{error}{'; --port says another one, and 0 any' if taken else ''}")
    with closing(bridge):
        print(f"Bridge at {bridge.endpoint}", flush=True)
        stop.get()
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one waits for nothing
            signal.signal(number, signal.SIG_DFL)
    return 0


def _print_link(email: str, link: str) -> None:
    print(f"Activate {email}: {link}", flush=True)


def _fail(message: str) -> int:
    print(f"pymdc.bridge: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
