"""The bridge as a program: ``python -m pymdc.bridge``."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from pymdc.bridge import missing
from pymdc.bridge.logs import configure
from pymdc.bridge.options import parse

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    if sys.argv[1:2] == ["admin"]:
        return _administer(sys.argv[2:])
    options = parse(sys.argv[1:])
    configure(options.pop("log_level"), options.pop("log_format"))
    with _stop_signals() as wait_for_signal:
        try:
            from pymdc.bridge import Bridge

            bridge = Bridge(announce=_print_link, **options)
            bridge.__enter__()
        except (ImportError, ValueError) as error:
            return _fail(str(error))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            return _fail(f"{error}{'; --port says another one, and 0 any' if taken else ''}")
        with closing(bridge):
            print(f"Bridge at {bridge.endpoint}", flush=True)
            wait_for_signal()
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], None]]:
    """Give a function that waits for SIGINT or SIGTERM, even if the signal came before the wait.

    Python writes a byte to the socket as soon as a signal arrives. A handler would run only after
    the wait if the signal arrived just before the wait.
    """
    reader, writer = socket.socketpair()

    def wait() -> None:
        reader.recv(1)
        for number in _STOP_SIGNALS:  # a second signal ends the program at once
            signal.signal(number, signal.SIG_DFL)

    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        try:
            yield wait
        finally:
            signal.set_wakeup_fd(-1)


def _administer(arguments: list[str]) -> int:
    try:
        from pymdc.bridge.admin.program import main
    except ImportError as error:
        return _fail(missing(error))
    return main(arguments)


def _print_link(email: str, link: str) -> None:
    is_link = "/activations/" in link  # else it is a token
    print(f"{'Activate' if is_link else 'New password for'} {email}: {link}", flush=True)


def _fail(message: str) -> int:
    print(f"pymdc.bridge: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
