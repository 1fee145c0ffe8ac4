"""The benchmarks: one table, each row a ratio of two sides measured in one run.

    .venv/bin/python benchmarks/run.py [--quick] [--pairs N] [--folder FOLDER] [row ...]

To install, on Linux: ``pip install '.[bridge]' requests-futures`` and
``apt-get install nginx curl``.
The exit status is 1 when a bar was missed, or a row with a bar failed, and 2 when nothing could
be measured.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

try:
    import calls
    import downloads
    import gets
    import imports
    import machine
    import memory
    import signing
    import starts
    import uploads
    from figures import GIB, MIB, Row, Scale, result, table

    import pymdc.bridge.bridge  # noqa: F401  # rows start it as a program
except ModuleNotFoundError as missing:
    print(f"{missing.name} is missing: pip install '.[bridge]' requests-futures", file=sys.stderr)
    sys.exit(2)

TWENTY_LINES = "executor + urllib3 + the same signer"
ROWS = (
    Row("blocking", f"signed blocking calls ÷ {TWENTY_LINES}", 0.90, calls.blocking),
    Row("callbacks", f"32 signed callback calls at a time ÷ {TWENTY_LINES}", 0.85, calls.callbacks),
    Row(
        "blocking-bare",
        "signed blocking calls ÷ urllib3 alone, not signed",
        0.60,
        calls.blocking_beside_urllib3,
    ),
    Row("blocking-ecdsa", "the same, signed by python-ecdsa", 0.24, calls.blocking_with_ecdsa),
    Row(
        "callbacks-requests",
        "32 signed callback calls at a time ÷ requests-futures, not signed",
        2.0,
        calls.callbacks_beside_requests,
    ),
    Row("sink", "upload, not verified ÷ curl -F", 1.0, uploads.to_sink),
    Row(
        "sink-verified",
        "upload, hash verified ÷ the slower of curl -F and SHA-256",
        0.85,
        uploads.to_sink_verified,
    ),
    Row(
        "bridge-upload",
        "upload ÷ a loop of SHA-256, write and fsync of each 8 MiB",
        0.6,
        uploads.to_bridge,
    ),
    Row(
        "bridge-small",
        "uploads of 1 KB ÷ an inserted row and a written file",
        0.5,
        uploads.small_to_bridge,
    ),
    Row("bridge-curl", "upload ÷ curl -F to the same bridge", None, uploads.to_bridge_by_curl),
    Row(
        "bridge-download",
        "download ÷ websockets loop that hashes and writes",
        1.2,
        downloads.from_bridge,
    ),
    Row(
        "bridge-pull",
        "download ÷ websockets loop that throws away",
        0.8,
        downloads.from_bridge_beside_pull,
    ),
    Row("memory-upload", memory.WHAT, 16, memory.upload, "MiB", at_most=True),
    Row("memory-download", memory.WHAT, 16, memory.download, "MiB", at_most=True),
    Row("signed-gets", "signed GETs that a bridge answers", 1500, gets.signed, "/s"),
    Row("import", "import pymdc ÷ its dependencies", 1.2, imports.plain, at_most=True),
    Row("import-fast", "the same, libsecp256k1 with both", None, imports.fast, at_most=True),
    Row("start", "start of a bridge ÷ of a bare uvicorn", None, starts.start, at_most=True),
    Row("stop", "stop of an idle bridge ÷ of a bare uvicorn", None, starts.stop, at_most=True),
    Row("signing", "libsecp256k1 ÷ ecdsa, no request", None, signing.alone),
)
NAMES = tuple(row.name for row in ROWS)
PAIRS, QUICK_PAIRS = 5, 3  # a median of fewer than 5 says little
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def parsed(arguments: Sequence[str] | None) -> tuple[Sequence[Row], Scale]:
    parser = argparse.ArgumentParser(description="Measure pymdc, and print one table.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="64 MiB and few calls, to try it")
    pairs = f"how many pairs ({PAIRS}, and no fewer; with --quick {QUICK_PAIRS})"
    parser.add_argument("--pairs", type=int, help=pairs)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="the disk (%(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(NAMES):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    default, least = (QUICK_PAIRS, 1) if options.quick else (PAIRS, PAIRS)
    count = default if options.pairs is None else options.pairs
    if count < least:
        parser.error(f"--pairs has to be at least {PAIRS}, or 1 with --quick; it was {count}")
    folder = os.path.abspath(options.folder)
    scale = Scale(folder, count, 5000, GIB, (64 * MIB, GIB, 8 * GIB))
    if options.quick:
        scale = Scale(folder, count, 200, 64 * MIB, (64 * MIB, 128 * MIB, 256 * MIB))
    return [row for row in ROWS if row.name in (options.rows or NAMES)], scale


def main(arguments: Sequence[str] | None = None) -> int:
    rows, scale = parsed(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    for variable in PROXIES:  # all servers are on this machine
        os.environ.pop(variable, None)
    results = []
    try:
        for row in rows:
            print(f"{row.name} ...", file=sys.stderr, flush=True)
            results.append(result(row, scale))
    except KeyboardInterrupt:
        print("Stopped; these rows were measured.", file=sys.stderr)
    if results:
        print(table(results), machine.described(scale), sep="\n\n")
    if len(results) < len(rows):
        return 130
    return int(any(outcome.missed for outcome in results))


if __name__ == "__main__":
    sys.exit(main())
