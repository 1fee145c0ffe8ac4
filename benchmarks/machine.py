"""The machine and the versions that a table was measured with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata

import imports
from figures import Scale, in_units
from parts import SHM
from programs import Missing, program

PACKAGES = ("urllib3", "ecdsa", "btclib-secp256k1", "websockets", "uvicorn", "requests-futures")


def described(scale: Scale) -> str:
    """Return notes on the table, as a reStructuredText list."""
    versions = [f"{name} {_package(name)}" for name in PACKAGES]
    versions += [f"nginx {_program('nginx', '-v')}", f"curl {_program('curl', '--version')}"]
    notes = (
        f"Median and spread of {scale.pairs} pairs, {imports.count(scale)} of imports, in one run; "
        "which side goes first alternates; "
        f"{scale.calls:,} calls, or {in_units(scale.size)}, per measurement; "
        f"memory {scale.pairs} times at {', '.join(map(in_units, scale.memory))}.",
        f"Files that are sent, and targets of downloads, are on {SHM}; "
        "the bridge's data, and files that are written for comparison with it, "
        f"are on the disk of {scale.folder}.",
        f"{os.cpu_count()} cores, {_cpu()}, Linux {platform.release()}, loopback.",
        f"Python {platform.python_version()}, {', '.join(versions)}.",
    )
    return "\n".join(f"* {note}" for note in notes)


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"model name\s*:\s*(.+)", file.read())
    return found[1] if found else platform.machine()


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _program(name: str, option: str) -> str:
    try:
        run = subprocess.run([program(name), option], capture_output=True, text=True, check=True)
    except Missing:
        return "missing"
    found = re.search(r"\d+(\.\d+)+", run.stdout + run.stderr)
    return found[0] if found else "unknown"
