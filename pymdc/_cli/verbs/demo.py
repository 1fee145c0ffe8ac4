"""``demo``: the way from an account to a downloaded file, at a bridge that is gone afterwards."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import click

from pymdc._cli.failures import Failure
from pymdc._cli.options import verb
from pymdc._cli.session import Session, connect
from pymdc._cli.verbs.serve import bridge_command, bridge_environment
from pymdc.api import Keys, Users
from pymdc.exceptions import unwrap

_EMAIL = "you@example.com"
_STEPS = (
    "mb photos",
    "put IMG_1.jpg notes.txt photos:",
    "ls -l photos:",
    "cat photos:notes.txt",
    "get photos:IMG_1.jpg back.jpg",
    "share photos:notes.txt",
    "buckets",
)


@verb
def demo(session: Session) -> None:
    """Show the verbs at work, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="pymdc-demo-") as name, _working_in(name):
        Path("IMG_1.jpg").write_bytes(os.urandom(12_400_000))
        Path("notes.txt").write_text("Files at the bridge are BUCKET:NAME.\n")
        with _bridge(Path(name, "data")) as (endpoint, process):
            session.out.summary(f"$ pymdc serve --data {name}/data --port 0")
            session.out.summary(f"$ pymdc login {endpoint}")
            _sign_in(endpoint, process)
            session.out.summary(f"Signed in as {_EMAIL}.")
            for step in _STEPS:
                _show(session, step)
    session.out.summary("That was it; nothing of it is left. Begin with: pymdc serve --data FOLDER")


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _bridge(data: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a bridge; yield its address and its process."""
    command = bridge_command("--port", "0", "--data", str(data), "--log-level", "error")
    with subprocess.Popen(
        command, stdout=PIPE, stderr=PIPE, text=True, env=bridge_environment()
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline()
            if not line:
                raise Failure(f"the bridge did not start: {process.stderr.read().strip()}")
            yield line.split()[-1].rstrip("/"), process
        finally:
            process.terminate()
            process.wait()


def _sign_in(endpoint: str, process: subprocess.Popen[str]) -> None:
    """Register somebody, and leave the key where the verbs look for it."""
    connect(endpoint)
    user = Users(_EMAIL)
    unwrap(user.register())
    assert process.stdout
    link = re.search(r"[0-9a-f]{64}", process.stdout.readline())
    assert link
    unwrap(user.activate(link[0]))
    keys = Keys(user)
    unwrap(keys.create())
    os.environ["PYMDC_PRIVATE_KEY"] = keys.key_pairs[0].get_private_key()


def _show(session: Session, step: str) -> None:
    session.out.summary(f"$ pymdc {step}")
    program = click.get_current_context().find_root().command
    own = Session(progress=session.progress, out=session.out)
    with program.make_context("pymdc", shlex.split(step), obj=own) as context:
        program.invoke(context)
    sys.stdout.flush()
