"""The bridge as a program: ``python -m pymdc.bridge``."""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import sys
from contextlib import closing

from pymdc._calls.waiting import Queue


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    options = _parser().parse_args()
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pymdc.bridge", description="Run a bridge.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=6382, help="0 is any (%(default)s)")
    parser.add_argument("--url", help="how users reach it, for the links in mails")
    parser.add_argument("--data", default="metadisk-data", help="folder (./%(default)s)")
    parser.add_argument("--smtp", metavar="URL", help="smtp[s]://[USER:PASSWORD@]HOST[:PORT]")
    parser.add_argument(
        "--nonce-rule",
        default="once",
        choices=["once", "2016"],
        help="which nonces are fresh: each with a signature once, or as in 2016 (%(default)s)",
    )
    return parser


def _print_link(email: str, link: str) -> None:
    print(f"Activate {email}: {link}", flush=True)


def _fail(message: str) -> int:
    print(f"pymdc.bridge: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
