"""docs/http-api.rst: its commands are typed into a shell, one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE
from typing import Any

import pytest
from modes import PATIENCE
from plain_client import User
from processes import MINUTE, ROOT
from readme import blocks

import pymdc
from pymdc.bridge import Bridge

PAGE = (ROOT / "docs" / "http-api.rst").read_text("utf-8")
ENDPOINT = "http://127.0.0.1:6382"
LINK = re.compile(rf"{ENDPOINT}/activations/[0-9a-f]{{64}}")
MISSING = [name for name in ("bash", "curl", "openssl") if shutil.which(name) is None]
VARYING = {"bucket", "created", "disk_free", "id"}


def steps() -> Iterator[tuple[str, str]]:
    """Yield each command of the page, and what it prints."""
    for block in blocks(PAGE, "console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output.rstrip("\n")


class Shell:
    """A shell that stays, so that its variables do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, command: str) -> str:
        """Return what *command* prints, both on stdout and on stderr."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command}\nstatus=$?; echo; echo END $status\n")
        self._process.stdin.flush()
        lines = []
        while not (line := self._process.stdout.readline()).startswith("END "):
            assert line, "the shell has ended"
            lines.append(line)
        assert line == "END 0\n", (command, lines)
        return "".join(lines).rstrip("\n")


def shape(text: str) -> Any:
    """Return *text*, or if it is JSON, its value without what varies."""
    try:
        return _stable(json.loads(text))
    except ValueError:
        return text


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        same = value.get("id") == value.get("email") is not None
        varying = VARYING - ({"id"} if same else set())
        return {name: ... if name in varying else _stable(part) for name, part in value.items()}
    return [_stable(part) for part in value] if isinstance(value, list) else value


@pytest.mark.skipif(bool(MISSING), reason=f"this machine has no {' and no '.join(MISSING)}")
def test_commands_of_the_page_print_what_stands_there(tmp_path: Path) -> None:
    links = SimpleQueue[str]()
    with (
        Bridge(announce=lambda _, link: links.put(link)) as bridge,
        subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=PIPE,
            stdout=PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "no_proxy": "*", "HOME": str(tmp_path)},
        ) as process,
    ):
        shell = Shell(process)
        for command, output in steps():
            if LINK.search(command):
                command = LINK.sub(links.get(timeout=PATIENCE), command)
            printed = shell.run(command.replace(ENDPOINT, bridge.endpoint))
            assert shape(printed) == shape(output), command
        process.communicate("exit\n", timeout=MINUTE)


def test_example_of_a_contract_is_signed_so() -> None:
    contract, signature = blocks(PAGE, "text")
    pair = pymdc.ECDSA(private_key=32 * "11")
    assert pair.sign(contract.rstrip("\n")) == signature.strip()
    assert pair.get_public_key() in PAGE


def test_example_of_a_channel_fetches_a_shard() -> None:
    names: dict[str, Any] = {}
    [example] = blocks(PAGE, "python")
    exec(example, names)
    with Bridge(shard_size=100_000) as bridge:
        alice = User(bridge, "alice")
        bucket, data = alice.bucket(), bytes(250_000)
        shards = alice.pointers(bucket, alice.upload(bucket, data).json["hash"]).json
        assert b"".join(names["fetch"](pointer) for pointer in shards) == data
