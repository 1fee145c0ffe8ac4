"""Other programs: nginx, curl and fresh interpreters."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymdc

WITHOUT_LIBSECP256K1 = "import sys; sys.modules['btclib_secp256k1'] = None"
_HERE = Path(__file__).parent
_MAX_WAIT = 10  # seconds for nginx to start

# nginx answers at once and discards a body as it arrives, in memory, so that curl, which uses a
# whole core, is the slower side of an upload. Servers that read larger pieces write files.
_NGINX = """
daemon off; pid {folder}/pid; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0; lingering_time 1h; lingering_timeout 1m;
    keepalive_requests 1000000000; keepalive_timeout 600s; default_type application/json;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }}
}}
"""


class Missing(Exception):
    """Something is not installed; the message says how to install it."""


def program(name: str) -> str:
    """Return the path of nginx or curl."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is missing: apt-get install nginx curl")
    return path


def module(name: str, package: str) -> Any:
    """Return the module *name* of *package*."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{package} is missing: pip install {package}") from error


def libsecp256k1() -> None:
    """Import the package that signs in C; raise `Missing` if it is not installed."""
    module("btclib_secp256k1", "btclib-secp256k1")


@contextmanager
def nginx(answer: object) -> Iterator[str]:
    """Yield the endpoint of an nginx that answers every request with *answer*, as JSON."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(_NGINX.format(folder=folder, port=port, answer=json.dumps(answer)))
        command = [program("nginx"), "-e", "stderr", "-c", str(config)]
        with running(subprocess.Popen(command, text=True)) as process:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End *process* when the block ends."""
    with process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()  # after Ctrl-C, the with statement alone would not wait


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + _MAX_WAIT
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise RuntimeError("nginx did not start")


def curl(path: str, url: str, *headers: str) -> float:
    """Send the file at *path* as a form; return MB/s as curl measured them."""
    command = [program("curl"), "-q", "-sS", "-X", "PUT", "-F", f"file=@{path}", "-H", "Expect:"]
    command += [part for header in headers for part in ("-H", header)]
    command += ["-o", os.devnull, "-w", "%{http_code} %{size_upload} %{time_total}", url]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr.strip() or f"curl ended with status {run.returncode}")
    status, sent, seconds = run.stdout.split()
    size = os.path.getsize(path)
    if status != "200" or int(sent) < size:
        raise RuntimeError(f"curl was answered {status} after {sent} bytes")
    return size / 1e6 / float(seconds)


def fresh(first: str, name: str, source: str | None = None, **given: object) -> Any:
    """Return the result of the function *name* (``module.function``) for the arguments *given*.

    It runs in a fresh interpreter, after the statement *first*; arguments and result are JSON.
    *source* is the folder of another pymdc.
    """
    code = (
        f"{first}; import json, sys, {name.partition('.')[0]};"
        f"print(json.dumps({name}(**json.load(sys.stdin))))"
    )
    return json.loads(python(code, json.dumps(given), source))


def python(code: str, given: str = "", source: str | None = None) -> str:
    """Return what *code* prints in a fresh interpreter, which imports the same pymdc."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        capture_output=True,
        text=True,
        cwd=_HERE,
        env=environment(source),
    )
    if run.returncode:
        raise RuntimeError((run.stderr.splitlines() or [f"status {run.returncode}"])[-1])
    return run.stdout


def environment(source: str | None = None) -> dict[str, str]:
    """Return an environment in which a process imports the pymdc that is imported here.

    *source* is the folder of another pymdc.
    The process may write compiled modules, because an installed package is compiled too.
    """
    source = source or str(Path(pymdc.__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": source}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables
