"""Several bridges on PostgreSQL and SeaweedFS behind nginx, and the CPU time of each of them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from parts import Account, address, bridge, bridge_process, new_account
from programs import environment

import pymdc

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
import postgres
import reverse_proxies
import seaweedfs
from servers import free_port

_TICKS = os.sysconf("SC_CLK_TCK")
# As Debian sets them, and not as the tests do.
_SETTINGS = {"autovacuum": "on", "shared_buffers": "128MB"}
Address = tuple[str, int]


@dataclass(frozen=True)
class Site:
    """An account at bridges at *servers*, and the processes of each service by its name."""

    account: Account
    servers: list[Address]
    processes: Mapping[str, list[int]]
    proxy: Address | None = None
    tls: ssl.SSLContext | None = None
    database: str = ""
    store: seaweedfs.SeaweedFS | None = None
    folder: Path = field(default_factory=Path)

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each service has taken, and this process as *client*."""
        used = {name: sum(map(_tree, pids)) for name, pids in self.processes.items()}
        return used | {"client": _seconds(Path("/proc/self/stat"))}

    def connect(self) -> psycopg.Connection[psycopg.rows.TupleRow]:
        """Return a connection to the database whose statements are transactions."""
        return psycopg.connect(self.database.replace("+psycopg", ""), autocommit=True)


def _tree(pid: int) -> float:
    """Return the CPU seconds of a process, and of its children, also those that have ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _seconds(Path(f"/proc/{pid}/stat")) + sum(
        _seconds(Path(f"/proc/{child}/stat")) for child in children
    )


def _seconds(stat: Path) -> float:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has just ended; its time is its parent's from now on
    return sum(map(int, fields[11:15])) / _TICKS


@contextmanager
def embedded(folder: str, source: str | None = None) -> Iterator[Site]:
    """Yield a bridge on SQLite and a folder; *source* is the folder of another pymdc."""
    with bridge(folder, source) as account:
        yield Site(account, [address(account.client.endpoint)], {"bridge": [account.pid]})


@contextmanager
def several(
    folder: str, count: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Yield *count* bridges on a PostgreSQL and a SeaweedFS of their own, behind nginx with TLS."""
    with ExitStack() as stack:
        new = tempfile.TemporaryDirectory(dir=folder, prefix="pymdc-benchmark-")
        data = Path(stack.enter_context(new))
        options = {**_SETTINGS, **(settings or {})}
        database = stack.enter_context(postgres.postgres(data, fsync=True, settings=options))
        store = stack.enter_context(seaweedfs.seaweedfs(data / "store"))
        url = database.new_database()
        variables = environment() | store.environment
        variables |= {"PYMDC_BRIDGE_DATABASE": url, "PYMDC_BRIDGE_STORE": store.store_url()}
        bridges = [stack.enter_context(bridge_process(folder, variables)) for _ in range(count)]
        servers = [address(endpoint) for endpoint, _ in bridges]
        port, certificate = free_port(), _certificate(data)
        ports = [port for _, port in servers]
        stack.enter_context(
            reverse_proxies.nginx_before_several(data, port, ports[0], certificate, *ports[1:])
        )
        client = stack.enter_context(pymdc.Client(bridges[0][0]))
        processes = {
            "bridge": [process.pid for _, process in bridges],
            "PostgreSQL": [database.pid],
            "store": [store.pid],
            "nginx": [int((data / "pid").read_text())],
        }
        yield Site(
            new_account(client, bridges[0][1]),
            servers,
            processes,
            ("localhost", port),
            ssl.create_default_context(cafile=data / "chain.pem"),
            url,
            store,
            data,
        )


def _certificate(folder: Path) -> Path:
    """Return a file with a certificate for localhost and its key."""
    file = folder / "certificate.pem"
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    options = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(file), "-out", str(folder / "chain.pem"))
    subprocess.run([*new.split(), *options, *files], check=True, capture_output=True)
    with file.open("a", encoding="ascii") as both:
        both.write((folder / "chain.pem").read_text(encoding="ascii"))
    return file


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the CPU seconds that each service took between two calls of `Site.cpu`."""
    return {name: after[name] - before[name] for name in after}


def smallest(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the round in which the services together took the least; the client does not count."""
    return min(rounds, key=lambda one: sum(one.values()) - one["client"])
