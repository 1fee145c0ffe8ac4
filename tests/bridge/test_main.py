"""The bridge as a program."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from backends import Backend
from plain_client import PASSWORD, address, ask, refused_upload
from processes import MINUTE, python

from pymdc import __version__
from pymdc.bridge import Bridge

PROGRAM = [sys.executable, "-W", "error", "-m", "pymdc.bridge", "--port", "0"]


@contextmanager
def program(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_program_says_where_it_stores(backend: Backend) -> None:
    places = {option.partition("=")[0]: option.partition("=")[2] for option in backend.options()}
    database, store = places.get("--database"), places.get("--store")
    with program(*backend.options()) as process:
        assert process.stdout
        assert process.stdout.readline().startswith(f"Files in {store or backend.data}. Open ")
        process.terminate()
        assert process.stderr
        line = process.stderr.readline()
    more = f", database {database}, store {store}" if database else ""
    assert line.endswith(f"data in {backend.data}{more}\n")


def test_second_signal_ends_the_program_at_once(data: Path) -> None:
    with program("--data", data) as process:
        assert process.stdout
        bridge = Bridge()
        bridge.endpoint = process.stdout.readline().split()[-1].rstrip("/")
        with refused_upload(bridge):
            process.send_signal(signal.SIGINT)
            assert process.stderr
            while "stopping" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == -signal.SIGINT


def test_program_prints_its_address_and_the_links(data: Path) -> None:
    with program("--data", data) as process:
        assert process.stdout
        first = rf"Files in {data}\. Open (http://127\.0\.0\.1:\d+)/\n"
        endpoint = re.fullmatch(first, process.stdout.readline())
        assert endpoint
        bridge = Bridge()
        bridge.endpoint = endpoint[1]
        fields = {"email": "a@example.com", "password": PASSWORD}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
        link = process.stdout.readline().split()[-1]
        assert ask(bridge, "GET", link.removeprefix(endpoint[1])).json["activated"] is True
        process.terminate()
        assert process.wait(MINUTE) == 0
        assert process.stderr
        errors = process.stderr.read()
        assert f" INFO pymdc.bridge {__version__}, data in {data}\n" in errors
        assert "Traceback" not in errors
        assert link.rpartition("/")[2] not in errors
    assert (data / "metadata.sqlite").exists()


@pytest.mark.parametrize(
    ("package", "option"),
    [("psycopg", "--database=postgresql+psycopg://127.0.0.1:1/x"), ("obstore", "--store=s3://x")],
)
def test_missing_package_of_an_extra_is_one_line(tmp_path: Path, package: str, option: str) -> None:
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None\n"
        "runpy.run_module('pymdc.bridge', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"--data={tmp_path}", "--port=0", option],
        capture_output=True,
        text=True,
        timeout=MINUTE,
    )
    remedy = f"{sys.executable} -m pip install '.[bridge,postgres]' in a clone of the project"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pymdc.bridge: {package} is missing: {remedy}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program_with_status_0(data: Path, number: signal.Signals) -> None:
    with program("--data", data) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(number)
        assert process.wait(MINUTE) == 0


SIGNAL_BEFORE_WAIT = """
import signal
from pymdc.bridge.__main__ import _signals

with _signals() as wait_for_signal:
    signal.raise_signal(signal.SIGTERM)
    assert wait_for_signal() == signal.SIGTERM
print("done")
"""


def test_signal_before_the_wait_ends_it() -> None:
    done = python("-c", SIGNAL_BEFORE_WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_startup_error_is_one_line(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    port = str(address(bridge)[1])
    other = "--data", tmp_path / "other"
    cases: list[tuple[int, tuple[str | Path, ...]]] = [
        (1, ("--data", tmp_path / "file")),
        (1, ("--data", tmp_path / "file" / "folder")),
        (1, (*other, "--port", port)),
        (1, (*other, "--tls-cert", tmp_path, "--tls-key", tmp_path)),
        (2, (*other, "--host", "")),
        (2, (*other, "--smtp", "smtp://user:sec/ret@x")),
    ]
    for status, arguments in cases:
        done = python("-m", "pymdc.bridge", "--port", "0", *arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert re.fullmatch(r"pymdc\.bridge: [^\[]+\n", done.stderr), "no number of an error"
        assert "sec" not in done.stderr


@pytest.mark.parametrize("missing", ["starlette", "sqlalchemy"])
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import runpy; runpy.run_module('pymdc.bridge', run_name='__main__')", "pymdc.bridge: "),
        ("from pymdc.bridge import Bridge", "ImportError: "),
    ],
    ids=["program", "import"],
)
def test_missing_package_is_one_line(tmp_path: Path, missing: str, code: str, line: str) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ImportError(name={missing!r})")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = []\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=MINUTE
    )
    assert (done.returncode, done.stdout) == (1, "")
    remedy = f"{sys.executable} -m pip install '.[bridge]' in a clone of the project"
    assert done.stderr.splitlines()[-1] == f"{line}{missing} is missing: {remedy}"
    assert line.startswith("Import") or done.stderr.count("\n") == 1
