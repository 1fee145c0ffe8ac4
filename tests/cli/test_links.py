"""Links: what share and request print works, once, in a shell with curl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import Verb
from processes import MINUTE

from pymdc.bridge import Bridge


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=MINUTE, check=False)


@pytest.fixture
def name(photos: str, folder: Path, pymdc: Verb) -> str:
    """Put a file, whose name a shell could take for something else."""
    (folder / "-it's").write_text("content")
    assert pymdc("put", "./-it's", "photos:").code == 0
    return "-it's"


def test_shared_file_is_fetched_once(name: str, folder: Path, bridge: Bridge, pymdc: Verb) -> None:
    curl, link = pymdc("share", f"photos:{name}").out.splitlines()
    (folder / name).unlink()
    assert shell(curl).returncode == 0
    assert (folder / name).read_text() == "content"
    assert shell(curl).returncode != 0
    (record,) = pymdc("share", "--json", f"photos:{name}").records
    assert record["link"].startswith(f"{bridge.endpoint}/#get/{record['bucket']}/{record['hash']}/")
    assert link.rpartition("/")[0] == record["link"].rpartition("/")[0]


def test_requested_file_arrives(photos: str, folder: Path, bridge: Bridge, pymdc: Verb) -> None:
    (folder / "FILE").write_text("from a friend")
    curl, link = pymdc("request", "photos:").out.splitlines()
    assert link.startswith(f"{bridge.endpoint}/#receive/{photos}/")
    assert shell(curl).returncode == 0
    assert pymdc("cat", "photos:FILE").out == "from a friend"
    assert shell(curl).returncode != 0


def test_notes_about_links_are_for_people(photos: str, pymdc: Verb) -> None:
    told = pymdc("request", "photos:").err
    assert told.startswith("Either works once, until ")
    assert "Only this machine reaches that address" in told
    assert pymdc("request", "photos:", "-q").err == ""
