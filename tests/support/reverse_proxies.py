"""The proxies of deploy/, with other ports, names and paths, as processes."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from processes import MINUTE, ROOT
from servers import free_port

DEPLOY = ROOT / "deploy"
NGINX_LOG = "nginx.log"  # in the folder that it is given

# Where nginx keeps pieces of requests and answers; only root can use the places it was built with.
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

# The folder, the proxy's port, the bridge's port, the certificate, and ports of other bridges
Proxy = Callable[..., AbstractContextManager[None]]


@contextmanager
def nginx(folder: Path, port: int, bridge_port: int, certificate: Path) -> Iterator[None]:
    """Run nginx with deploy/nginx.conf on *port*."""
    text = _replaced(
        (DEPLOY / "nginx.conf").read_text(encoding="utf-8"),
        ("listen 443", f"listen {port}"),
        ("listen [::]:443", f"listen [::]:{port}"),
        ("/etc/letsencrypt/live/bridge.example.com/fullchain.pem", str(certificate)),
        ("/etc/letsencrypt/live/bridge.example.com/privkey.pem", str(certificate)),
        ("bridge.example.com", "localhost"),
        ("127.0.0.1:6382", "bridge"),
    )
    if not socket.has_ipv6:
        text = _replaced(text, (f"listen [::]:{port} ssl;", ""))
    # Two servers that are one: a request that fails could be sent to the other one as well.
    bridge = f"server 127.0.0.1:{bridge_port} max_fails=0;"
    paths = " ".join(f"{name}_temp_path {folder / name};" for name in _TEMPORARY)
    file = folder / "nginx.conf"
    file.write_text(
        f"user {getpass.getuser()}; daemon off; pid {folder / 'pid'};"
        f" error_log stderr notice; events {{}} http {{ access_log off; {paths}"
        f" upstream bridge {{ {bridge} {bridge} }}\n{text}}}"
    )
    command = [_program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(file)]
    with _running(command, "start worker process", folder / NGINX_LOG, {}):
        yield


@contextmanager
def nginx_before_several(
    folder: Path, port: int, bridge_port: int, certificate: Path, *other_ports: int
) -> Iterator[None]:
    """Run nginx with deploy/nginx-bridges.conf on *port*; without other bridges, one is two."""
    text = (DEPLOY / "nginx-bridges.conf").read_text(encoding="utf-8")
    second = other_ports[0] if other_ports else bridge_port
    paths = " ".join(f"{name}_temp_path {folder / name};" for name in _TEMPORARY)
    text = _replaced(
        text,
        ("listen 443", f"listen {port}"),
        ("listen [::]:443", f"listen [::]:{port}"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen [::]:80;", ""),
        ("/etc/nginx/tls/fullchain.pem", str(certificate)),
        ("/etc/nginx/tls/privkey.pem", str(certificate)),
        ("127.0.0.1:6381", f"127.0.0.1:{free_port()}"),
        ("172.30.83.11:6382", f"127.0.0.1:{bridge_port}"),
        ("172.30.83.12:6382", f"127.0.0.1:{second}"),
        ("/run/nginx.pid", str(folder / "pid")),
        ("/dev/stderr warn", "stderr notice"),
        ("worker_processes     auto;", f"worker_processes 1; user {getpass.getuser()};"),
        ("http {\n", f"http {{\n{paths}\n"),
    )
    if not socket.has_ipv6:
        text = _replaced(text, (f"listen [::]:{port} ssl;", ""))
    if not [*Path("/etc/nginx/modules-enabled").glob("*stream.conf")]:
        pytest.skip("nginx has no module stream")
    file = folder / "nginx.conf"
    file.write_text(f"daemon off;\n{text}")
    # Without -p, by which nginx would look for its modules.
    command = [_program("nginx"), "-e", "stderr", "-c", str(file)]
    with _running(command, "start worker process", folder / NGINX_LOG, {}):
        yield


@contextmanager
def caddy(folder: Path, port: int, bridge_port: int, certificate: Path) -> Iterator[None]:
    """Run Caddy with deploy/Caddyfile on *port*."""
    site = "{$PYMDC_BRIDGE_URL:https://bridge.example.com} {\n"
    text = _replaced(
        (DEPLOY / "Caddyfile").read_text(encoding="utf-8"),
        (site, f"{site}\ttls {certificate} {certificate}\n"),
    )
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
    variables = {
        "PYMDC_BRIDGE_URL": f"https://localhost:{port}",
        "BRIDGE": f"127.0.0.1:{bridge_port}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    command = [_program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
    with _running(command, "serving initial configuration", folder / "caddy.log", variables):
        yield


PROXIES: dict[str, Proxy] = {"nginx": nginx, "nginx-several": nginx_before_several, "caddy": caddy}


def _replaced(text: str, *replacements: tuple[str, str]) -> str:
    for old, new in replacements:
        assert old in text, f"{old!r} is not in the file"
        text = text.replace(old, new)
    return text


def _program(name: str) -> str:
    # Debian has nginx where only root's PATH leads.
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@contextmanager
def _running(
    command: Sequence[str], ready: str, log: Path, variables: dict[str, str]
) -> Iterator[None]:
    """Run *command*, whose stderr is *log*, from when it writes *ready* until the block ends."""
    environment = {**os.environ, **variables}
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stderr=stderr, env=environment) as process,
    ):
        try:
            until = time.monotonic() + MINUTE
            while ready not in (written := log.read_text(encoding="utf-8", errors="replace")):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                assert process.returncode is None, f"{command[0]} ended:\n{written}"
                assert time.monotonic() < until, f"{command[0]} is not ready:\n{written}"
            yield
        finally:
            process.terminate()
            try:
                process.wait(MINUTE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
