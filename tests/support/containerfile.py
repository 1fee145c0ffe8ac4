"""Containerfiles, without containers: a stage is a folder that overlays the root of this machine.

So the base image is this machine, with the Python that runs the tests. Only root can do that.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

PYTHON = Path(getattr(sys, "_base_executable", sys.executable))
_PATH = f"{PYTHON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Instruction(NamedTuple):
    """A line of a Containerfile."""

    name: str
    value: str


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions in *text*; one that goes on in the next line is one."""
    whole = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    for line in filter(str.strip, whole.splitlines()):
        name, _, value = line.partition(" ")
        yield Instruction(name, value.strip())


class Stage:
    """A stage with the folder *root*; *script* are the lines for a shell that make it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.health: list[str] = []
        self.entrypoint: list[str] = []
        self.user = "root"
        self.variables = {"PATH": _PATH, "HOME": "/root"}
        upper, work = (root.with_suffix(end) for end in (".upper", ".work"))
        options = f"lowerdir=/,upperdir={upper},workdir={work}"
        python = f"{root}{PYTHON.parent}/python"
        self.script = [
            f"mkdir {root} {upper} {work}",
            f"mount -t overlay none -o {options} {root}",
            f"mount --rbind /dev {root}/dev",
            f"mount -t proc proc {root}/proc",
            f"[ -e {python} ] || ln -s {PYTHON} {python}",
            # Else another user can't run Python if it is that of root.
            *(f"chmod o+x {root}{parent}" for parent in PYTHON.parents),
        ]

    def command(self, arguments: list[str], **variables: str) -> str:
        """Return the line that runs a program in the stage."""
        given = [f"{name}={value}" for name, value in (self.variables | variables).items()]
        user = f"--userspec={self.user}:"
        return shlex.join(["chroot", user, str(self.root), "env", "-i", *given, *arguments])


class Build:
    """The stages of the Containerfile *text*, in *folder*; *context* has the files to copy."""

    def __init__(self, text: str, context: Path, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._named: dict[str, Stage] = {}
        self.stages: list[Stage] = []
        for name, value in instructions(text):
            getattr(self, f"_{name.lower()}")(value)

    @property
    def last(self) -> Stage:
        """The stage that the image is made of."""
        return self.stages[-1]

    def _from(self, value: str) -> None:
        self.stages.append(Stage(self._folder / f"stage{len(self.stages)}"))
        self._named[value.partition(" AS ")[2]] = self.last

    def _copy(self, value: str) -> None:
        *sources, target = shlex.split(value)
        base = self._context
        if sources[0].startswith("--from="):
            base = self._named[sources.pop(0).partition("=")[2]].root
        to = f"{self.last.root}{target}"
        self.last.script.append(f"mkdir -p {to}")
        for source in sources:
            path = base / source.lstrip("/")
            copy = f"if [ -d {path} ]; then cp -a {path}/. {to}; else cp {path} {to}; fi"
            self.last.script.append(copy)

    def _run(self, value: str) -> None:
        self.last.script.append(self.last.command(["sh", "-c", value]))

    def _env(self, value: str) -> None:
        for pair in shlex.split(value):
            name, _, text = pair.partition("=")
            self.last.variables[name] = Template(text).substitute(self.last.variables)

    def _user(self, value: str) -> None:
        self.last.user = value

    def _volume(self, value: str) -> None:
        volume, inside = f"{self.last.root}.volume", f"{self.last.root}{value}"
        self.last.script += [f"cp -a {inside} {volume}", f"mount --bind {volume} {inside}"]

    def _expose(self, value: str) -> None:
        assert value.isdigit()

    def _healthcheck(self, value: str) -> None:
        self.last.health = json.loads(value.partition("CMD")[2])

    def _entrypoint(self, value: str) -> None:
        self.last.entrypoint = json.loads(value)
