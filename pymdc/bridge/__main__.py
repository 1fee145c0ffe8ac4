"""The bridge as a program: ``python -m pymdc.bridge``."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from pymdc.bridge.errors import missing

try:
    from pymdc.bridge.logs import configure, write_some
    from pymdc.bridge.options import VERSION, parse, unknown_variables
    from pymdc.bridge.settings import STOP_RESERVE, TELL_SECONDS
except ImportError as error:
    sys.exit(f"pymdc.bridge: {missing(error)}")

_RELOAD = getattr(signal, "SIGHUP", None)  # Windows has no such signal
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger("pymdc.bridge")


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    if sys.argv[1:2] == ["admin"]:
        return _administer(sys.argv[2:])
    options = parse(sys.argv[1:])
    configure(options.pop("log_level"), options.pop("log_format"))
    for name in unknown_variables():
        _log.warning("the variable %s is none of the bridge's; --help shows them", name)
    terminals = [number for number in range(3) if os.isatty(number)]
    with _signals() as wait_for_signal:
        try:
            from pymdc.bridge import Bridge
            from pymdc.bridge.serving.uvicorn import raise_descriptor_limit

            raise_descriptor_limit()
            bridge = Bridge(announce=_print_link, **options)
            bridge.__enter__()
        except (ImportError, ValueError) as error:
            return _fail(str(error))
        except OSError as error:
            return _fail(_reason(error))
        with closing(bridge):
            data = os.path.abspath(options["data"])
            _log.info("%s, data in %s", VERSION, ", ".join([data, *_elsewhere(options)]))
            print(f"Files in {options['store'] or data}. Open {bridge.endpoint}/", flush=True)
            if bridge.metrics_endpoint:
                print(f"Metrics at {bridge.metrics_endpoint}", flush=True)
            while wait_for_signal() == _RELOAD and not any(map(_is_hung_up, terminals)):
                if options["tls_cert"] is None:
                    _log.warning("there is no certificate to read again")
                else:
                    bridge.reload_certificate()
            _end_after(options["drain"] + options["grace"] + STOP_RESERVE)
            _log.info("stopping")
    return 0


def _elsewhere(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not in the data folder, and where it is."""
    if options["database"]:
        from pymdc.bridge.storage.servers import shown_url

        yield f"database {shown_url(options['database'])}"
    if options["store"]:
        yield f"store {options['store']}"


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Give a function that waits for a signal, even if one came before the wait, and returns it.

    Python writes the number of a signal to the socket as soon as it arrives. A handler would run
    only after the wait if the signal arrived just before the wait.
    """
    reader, writer = socket.socketpair()

    def wait() -> int:
        number = reader.recv(1)[0]
        if number in _STOP_SIGNALS:
            for other in _STOP_SIGNALS:  # a second signal ends the program at once
                signal.signal(other, signal.SIG_DFL)
        return number

    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (*_STOP_SIGNALS, *([_RELOAD] if _RELOAD else [])):
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


def _is_hung_up(terminal: int) -> bool:
    """Say whether a descriptor that was a terminal is none any more: its window was closed."""
    return not os.isatty(terminal)


def _end_after(seconds: float) -> None:
    """End the program after so many *seconds*, whatever hangs: a disk, perhaps."""

    def tell() -> None:
        _log.error("the bridge did not stop in %g seconds, and is ended", seconds)

    def end() -> None:
        teller = threading.Thread(target=tell, daemon=True)  # whoever reads the log may hang
        teller.start()
        teller.join(TELL_SECONDS)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    taken = error.errno == errno.EADDRINUSE
    remedy = "; --port and --metrics-port choose others, and 0 is any" if taken else ""
    return f"{where}{error.strerror or error}{remedy}"


def _print_link(email: str, link: str) -> None:
    is_link = "/activations/" in link  # else it is a token
    text = f"{'Activate' if is_link else 'New password for'} {email}: {link}\n"
    if write_some(sys.stdout, text):
        _log.warning("nobody reads stdout: the mail to %s is in the outbox alone", email)


def _fail(message: str) -> int:
    print(f"pymdc.bridge: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
