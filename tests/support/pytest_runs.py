"""pytest in a process of its own, with the plugin of pymdc as an installation has it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from subprocess import CompletedProcess

from processes import ROOT, python

NAME, MODULE = re.findall(r'"pytest11": \["(\w+) = (\w+)"\]', (ROOT / "setup.py").read_text())[0]


def pytest_run(folder: Path, *arguments: str, autoload: bool = False) -> CompletedProcess[str]:
    """Run pytest in *folder*; the entry point is there also if pymdc is not installed.

    Without *autoload* pytest loads this plugin alone, and xdist if it is used, which is faster.
    """
    installed = folder.with_name(f"{folder.name}-installed")
    metadata = installed / "metadisk_client_python-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Name: metadisk-client-python\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{NAME} = {MODULE}\n")
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {"PYTHONPATH": path, "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    environment["TMPDIR"] = str(folder.parent)
    if not autoload:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        environment["PYTEST_ADDOPTS"] += f" -p {NAME}" + " -p xdist" * ("-n" in arguments)
    return python("-m", "pytest", "--rootdir", str(folder), *arguments, cwd=folder, env=environment)
