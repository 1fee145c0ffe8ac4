"""``serve``: run a bridge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
from click.exceptions import Exit

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}
_LOG_LEVEL = "PYMDC_BRIDGE_LOG_LEVEL"


@click.command(context_settings=_PASSED_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Run a bridge; the options are those of python -m pymdc.bridge.

    Its log shows warnings, if no --log-level says otherwise.
    """
    command = bridge_command(*options)
    sys.stdout.flush()
    environment = {_LOG_LEVEL: "warning", **bridge_environment()}
    if os.name == "nt":  # there exec is another process, which the shell does not wait for
        raise Exit(subprocess.call(command, env=environment))
    os.execve(sys.executable, command, environment)


def bridge_command(*options: str) -> list[str]:
    """Return the command that runs a bridge."""
    # -P: else Python imports from the working directory, which may be anybody's.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *safe, "-m", "pymdc.bridge", *options]


def bridge_environment() -> dict[str, str]:
    """Return the environment in which that command finds this pymdc."""
    home = str(Path(__file__).parents[3])
    if sys.path[0] != home:
        return {**os.environ}
    paths = [home, os.environ.get("PYTHONPATH")]  # python -m pymdc in a clone
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
