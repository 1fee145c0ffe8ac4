"""The manifest of sync: read, damaged, hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import Verb
from hypothesis import given, settings
from hypothesis import strategies as st
from syncing import content, write

import pymdc as library
from pymdc._cli.failures import Failure
from pymdc._cli.sync.manifest import NAME, Former, Manifest, decode, encode
from pymdc._cli.sync.remote import newest
from pymdc._cli.sync.tree import Entry, Tree
from pymdc.api import Files

HASH = "0" * 40
ROW = [HASH, 1, 0, 0o644, 0]

hashes = st.binary(min_size=20, max_size=20).map(bytes.hex)
paths = st.lists(
    st.binary(min_size=1, max_size=5)
    .filter(lambda it: it not in (b".", b"..", NAME.encode()) and not set(it) & set(b"/\0"))
    .map(os.fsdecode),
    min_size=1,
    max_size=3,
).map("/".join)
rows = st.builds(
    Entry,
    hashes,
    st.integers(0, 2**63),
    st.none() | st.integers(-(2**62), 2**62),
    st.none() | st.integers(0, 0o777),
    st.booleans(),
)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(paths, rows, max_size=3),
    st.sets(paths, max_size=2),
    st.dictionaries(hashes, st.builds(Former, paths, st.text(max_size=3)), max_size=2),
    st.frozensets(hashes, max_size=2),
)
def test_manifest_is_read_as_it_was_written(
    files: dict[str, Entry], folders: set[str], unneeded: dict[str, Former], parents: frozenset[str]
) -> None:
    manifest = Manifest(Tree(files, folders), unneeded, parents)
    assert decode(bytes(encode(manifest))) == manifest
    assert encode(manifest) != encode(manifest)


@pytest.fixture
def files(photos: str) -> Files:
    return library.api.Bucket(
        photos, library.ECDSA(private_key=os.environ["PYMDC_PRIVATE_KEY"])
    ).files


def put_manifest(where: Files, /, **changes: Any) -> None:
    """Put a manifest of one file into the bucket, with *changes*."""
    document = json.loads(encode(Manifest())) | changes
    assert where.upload(bytearray(json.dumps(document), "ascii"), name=NAME)["filename"] == NAME


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "a/../../outside",
        "/tmp/outside",
        "a//b",
        "./a",
        "a/.",
        "",
        "nul\0",
        f"{NAME}/x",
        NAME,
        "\ud800",
        "\udcc3\udca9",  # another spelling of é
    ],
)
def test_hostile_path_is_refused_with_the_whole_manifest(path: str) -> None:
    for field in ({"files": {path: ROW}}, {"folders": [path]}, {"unneeded": {HASH: [path, "x"]}}):
        document = json.loads(encode(Manifest())) | field
        with pytest.raises(
            Failure, match=r"damaged: .*(is no path within the folder|codec)"
        ) as told:
            decode(json.dumps(document).encode())
        assert told.value.code == 6


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"pymdc-sync": "1"}',
        b'{"pymdc-sync": 1}',
        *(
            json.dumps(json.loads(encode(Manifest())) | {"files": {"a": row}}).encode()
            for row in (
                None,
                [],
                ["x", 1, 0, 0, 0],
                [HASH, -1, 0, 0, 0],
                [HASH, 1, 0, 0o4755, 0],
                [HASH, True, 0, 0, 0],
                [HASH, 1, 2**64, 0, 0],
                [HASH, 1, "x", 0, 0],
            )
        ),
    ],
)
def test_damaged_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(Failure, match="is damaged"):
        decode(body)


def test_damaged_or_newer_manifest_changes_nothing(files: Files, folder: Path, pymdc: Verb) -> None:
    write(folder / "docs", {"a": "a"})
    put_manifest(files, **{"pymdc-sync": 2})
    for arguments in (["docs", "photos:"], ["photos:", "docs", "--delete", "-y"]):
        done = pymdc("sync", *arguments)
        assert (done.code, done.out) == (1, "")
        assert "has the version 2, and this pymdc knows 1" in done.err
        assert "nothing was changed" in done.err
    assert content(folder / "docs") == {"a": "a"}
    assert [entry["filename"] for entry in files.list()] == [NAME]
    files.delete(files.list()[0]["hash"])
    put_manifest(files, files=3)
    done = pymdc("sync", "docs", "photos:")
    assert (done.code, len(files.list())) == (6, 1)
    assert "is damaged" in done.err


def test_path_through_a_symbolic_link_is_refused(
    files: Files, folder: Path, tmp_path: Path, pymdc: Verb
) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "here").mkdir()
    (folder / "here" / "link").symlink_to(tmp_path / "outside")
    (folder / "here" / "file").symlink_to(tmp_path / "outside" / "y")
    stored = files.upload(bytearray(b"x"), name="x")["hash"]
    row = [stored, 1, 0, 0o644, 0]
    put_manifest(files, files={"link/x": row, "file": row, "good": row}, folders=["link/empty"])
    done = pymdc("sync", "photos:", "here")
    assert done.code == 1
    assert "link is a symbolic link here, which is not followed" in done.err
    assert "file is no regular file here, and is not replaced" in done.err
    assert (folder / "here" / "good").read_text() == "x"
    assert not list((tmp_path / "outside").iterdir())


def test_content_that_is_gone_is_told_and_sent_again(
    files: Files, folder: Path, pymdc: Verb
) -> None:
    write(folder / "docs", {"a": "a", "b": "bb"})
    assert pymdc("sync", "docs", "photos:").code == 0
    assert pymdc("rm", "photos:a").code == 0
    done = pymdc("sync", "photos:", "back")
    assert done.err == "pymdc: a: its content is not in the bucket any more\n"
    assert done.out == "1 fetched, 0 unchanged, 0 removed, 2 B; 1 failed\n"
    assert pymdc("sync", "docs", "photos:").out.startswith("1 sent, 1 unchanged")
    assert pymdc("sync", "photos:", "back").out.startswith("1 fetched, 1 unchanged")


def test_first_of_two_manifests_counts_and_who_follows_it() -> None:
    def child_of(*parents: str) -> Manifest:
        return Manifest(parents=frozenset(parents))

    assert newest({}) == ""
    assert newest({"old": child_of(), "new": child_of("old")}) == "new"
    assert newest({"new": child_of("old"), "late": child_of("old")}) == "new"
    both = {"old": child_of(), "new": child_of("old"), "late": child_of("old")}
    assert newest(both) == "new"
    assert newest(both | {"next": child_of("new", "late")}) == "next"


def test_copy_of_the_manifest_is_not_sent(files: Files, folder: Path, pymdc: Verb) -> None:
    write(folder / "docs", {"a": "a"})
    assert pymdc("sync", "docs", "photos:").code == 0
    assert pymdc("get", f"photos:{NAME}", "docs/copy").code == 0
    done = pymdc("sync", "docs", "photos:", "--delete", "-y")
    assert (done.code, done.err.splitlines()) == (
        1,
        [
            "pymdc: copy: a copy of the bucket's manifest is not sent",
            "nothing is removed, since not everything could be sent",
        ],
    )
    assert done.out == "0 sent, 1 unchanged, 0 removed, 0 B; 1 failed\n"
    assert [entry["filename"] for entry in files.list(name=NAME)] == [NAME]
