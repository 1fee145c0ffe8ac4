"""What the bridge acknowledged, after it was killed and the power was cut; for ``tox -e power``.

POWER_CUTS says how often; "all" is at each change that the bridge makes to its folder.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import IO

import power_cut
import pytest
from plain_client import PASSWORD, Key, User, ask
from power_cut import Disk, supervised
from processes import MINUTE

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

# The program, which cuts files into small shards here.
PROGRAM = """
import sys
from pymdc.bridge import Bridge
from pymdc.bridge.__main__ import main
Bridge.__init__.__kwdefaults__["shard_size"] = 1000
sys.exit(main())
"""
STOPPING = 20  # changes that a bridge makes when it stops, and a few that it does not make
CUTS = os.environ.get("POWER_CUTS", "1")
OLD = (Path(__file__).parents[1] / "bridge" / "old_schema.sql").read_text("utf-8")
OLD_OBJECT = "b3f5f16243bac843d58c5b28a371e638"
SOME = random.Random(7).randbytes(2500)
FILES = {"shares shards": SOME[:2000] + b"end", "small": b"small", "empty": b""}
AT_ONCE = {f"at once {number}": SOME[number : number + 1500] for number in range(3)}
# Which of the changes that were not synced a power cut leaves.
LEFT: dict[str, Callable[[random.Random], bool]] = {
    "nothing": lambda _: False,
    "some": lambda choose: choose.random() < 0.5,
    "everything": lambda _: True,
}


@pytest.fixture(autouse=True, scope="module")
def supervision() -> None:
    if reason := power_cut.missing():
        pytest.skip(reason)


class Journey:
    """What a user does at a bridge that begins with an empty folder, and what is acknowledged.

    *must* are the files that a bucket has to have, and *may* those that it can have besides.
    *database* is the text of an older database to begin with.
    *changes* are the changes that the bridge made to *disk* until the end of the journey.
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        data = folder / "data"
        folder.mkdir()
        if database:
            (data / "shards").mkdir(parents=True)
            (data / "shards" / OLD_OBJECT).write_bytes(b"abc")
            with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
                connection.executescript(database)
        self.disk = Disk(folder)
        self.changes: list[str] = []
        self.activated = False
        self.must: dict[str, dict[str, bytes]] = {}
        self.may: dict[str, dict[str, bytes]] = {}
        self._data = str(data)
        self.bridge = Bridge()  # for its address alone
        self.user = User(self.bridge, "alice", known=True)

    def run(self, do: Callable[[IO[str]], object], kill_at: int | None = None) -> None:
        """Run the program, *do* something with it, and kill it: before change *kill_at*, if given.

        A program that did more changes than that is stopped first.
        """
        command = [sys.executable, "-W", "error", "-c", PROGRAM, "--port", "0", "--data"]
        with supervised([*command, self._data], self.disk, kill_at) as running:
            output = running.process.stdout
            assert output
            line = output.readline()
            if line:
                self.bridge.endpoint = line.split()[-1].rstrip("/")
                with suppress(OSError, HTTPException, IndexError):  # it was killed
                    do(output)
            if kill_at is not None:
                running.process.terminate()
                running.process.wait(MINUTE)
            running.process.kill()
            self.changes = [*running.changes]

    def begin(self, output: IO[str]) -> str:
        """Register, and upload a file; return the bucket."""
        fields = {"email": self.user.email, "password": PASSWORD, "pubkey": Key("alice").public}
        assert ask(self.bridge, "POST", "/users", json.dumps(fields)).status == 200
        link = output.readline().split()[-1].partition("/activations")[2]
        self.activated = ask(self.bridge, "GET", f"/activations{link}").status == 200
        bucket = self._create()
        self._upload(bucket, SOME, "first")
        return bucket

    def go(self, output: IO[str]) -> None:
        """Begin, then upload and remove in every way."""
        first, second = self.begin(output), self._create()
        for name, data in FILES.items():
            self._upload(first, data, name)
        with ThreadPoolExecutor(len(AT_ONCE)) as threads:
            [*threads.map(partial(self._upload, first), AT_ONCE.values(), AT_ONCE)]
        self._upload(first, SOME, "again")
        self._upload(second, FILES["small"], "elsewhere")
        self._upload(second, SOME[::-1], "reversed")
        self._remove(first, SOME)
        self._remove_bucket(second)
        self._upload(first, SOME[::-1], "reversed")

    def look(self, _output: IO[str]) -> None:
        """List all files; what is shown has to stay."""
        for bucket, files in self.may.items():
            self.must[bucket] = {name: files[name] for name in self.listed(bucket)}

    def listed(self, bucket: str) -> set[str]:
        listed = self.user.ask("GET", f"/buckets/{bucket}/files").json
        return {entry["hash"] for entry in listed}

    def _create(self) -> str:
        bucket = self.user.bucket()
        self.must[bucket], self.may[bucket] = {}, {}
        return bucket

    def _upload(self, bucket: str, data: bytes, name: str) -> None:
        self.may[bucket][file_hash(data)] = data
        assert self.user.upload(bucket, data, name).status == 200
        self.must[bucket][file_hash(data)] = data

    def _remove(self, bucket: str, data: bytes) -> None:
        name = file_hash(data)
        del self.must[bucket][name]
        assert self.user.ask("DELETE", f"/buckets/{bucket}/files/{name}").status == 204
        del self.may[bucket][name]

    def _remove_bucket(self, bucket: str) -> None:
        del self.must[bucket]
        assert self.user.ask("DELETE", f"/buckets/{bucket}").status == 204
        del self.may[bucket]

    def check(self, data: Path) -> None:
        """Start a bridge with what is left in *data*, and check that it has everything."""
        with Bridge(data) as self.user.bridge:
            if self.activated:
                assert len([*(data / "outbox").glob("*.eml")]) == 1
                buckets = {bucket["id"] for bucket in self.user.ask("GET", "/buckets").json}
                assert self.must.keys() <= buckets
                for bucket in buckets & self.may.keys():
                    self._check_files(bucket)
            self.user.bridge._housekeeper.keep_house()  # it finishes removals
        check_folder(data)

    def _check_files(self, bucket: str) -> None:
        files = self.listed(bucket)
        assert self.must.get(bucket, {}).keys() <= files
        assert files <= self.may[bucket].keys()
        for name in files:
            assert self.user.download(bucket, name) == self.may[bucket][name]
        for content in (SOME, *FILES.values()):  # the shards that are left are good to share
            assert self.user.upload(bucket, content).status == 200
            assert self.user.download(bucket, file_hash(content)) == content


def check_folder(data: Path) -> None:
    """Check that no object is without a row, and that what is used adds up."""
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        stored = {name for (name,) in connection.execute("SELECT object FROM shards")}
        [[uploads]] = connection.execute("SELECT count(*) FROM uploads").fetchall()
        size = "SELECT coalesce(sum(size), 0) FROM files WHERE bucket = buckets.id"
        wrong = f"SELECT id FROM buckets WHERE used != ({size})"
        assert connection.execute(wrong).fetchall() == []
    assert {path.name for path in (data / "shards").glob("[0-9a-f]*")} == stored
    assert uploads == 0


def points(count: int, share: int = 1) -> Iterable[int]:
    """Return before which of *count* changes the bridge is killed: all, or a *share* of CUTS."""
    if CUTS == "all":
        return range(count)
    return random.Random().sample(range(count), max(1, int(CUTS) // share))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """Give a journey that has come to its end."""
    journey = Journey(tmp_path_factory.mktemp("whole") / "root")
    journey.run(journey.go)
    assert len(journey.must) == 1
    return journey


def test_acknowledged_outlasts_a_kill_and_a_power_cut(whole: Journey, tmp_path: Path) -> None:
    for kill_at in points(len(whole.changes) + STOPPING):
        journey = Journey(tmp_path / str(kill_at))
        journey.run(journey.go, kill_at)
        for name, is_left in LEFT.items():
            print(f"killed before change {kill_at}; {name} that is not synced is left")
            left = tmp_path / f"{kill_at} {name}"
            journey.disk.leave(left, partial(is_left, random.Random(kill_at)))
            journey.check(left / "data")
            if name == "everything":  # then the database knows every upload
                assert not (left / "data" / "set-aside").exists()


def test_killed_migration_is_made_again(tmp_path: Path) -> None:
    whole = Journey(tmp_path / "whole", OLD)
    whole.run(whole.look)
    for kill_at in points(len(whole.changes), share=2):
        journey = Journey(tmp_path / str(kill_at), OLD)
        journey.run(journey.look, kill_at)
        for name, is_left in LEFT.items():
            print(f"killed before change {kill_at}; {name} that is not synced is left")
            left = tmp_path / f"{kill_at} {name}"
            journey.disk.leave(left, partial(is_left, random.Random(kill_at)))
            with Bridge(left / "data") as journey.user.bridge:
                for bucket in journey.user.ask("GET", "/buckets").json:
                    assert journey.user.download(bucket["id"], file_hash(b"abc")) == b"abc"
            check_folder(left / "data")
            assert [*(left / "data").glob("*.part")] == []


def test_what_a_killed_bridge_had_written_lasts_once_it_is_shown(tmp_path: Path) -> None:
    whole, journey = Journey(tmp_path / "whole"), Journey(tmp_path / "killed")
    whole.run(whole.begin)
    last_sync = max(index for index, name in enumerate(whole.changes) if name == "fdatasync")
    journey.run(journey.begin, last_sync)
    assert [*journey.must.values()] == [{}]
    journey.run(journey.look)
    assert [*journey.must.values()] == [{file_hash(SOME): SOME}]
    journey.disk.leave(tmp_path / "left", lambda: False)
    journey.check(tmp_path / "left" / "data")
