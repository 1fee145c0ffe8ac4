"""A user of a bridge that is killed now and then, and what the bridge has acknowledged to him."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from plain_client import PASSWORD, Key, Reply, User, ask, basic

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

CONTENTS = 300  # that all customers share, so that they share shards
MOST_BUCKETS = 4
MOST_FILES = 60  # in a bucket
SMALL, LARGE = 10_000, 20_000_000  # bytes, at most
TIGHT = 0.0002  # GB, for a bucket that is soon full
BROKEN = (OSError, HTTPException, AssertionError)  # how a request ends when the bridge is killed


def content(number: int) -> bytes:
    """Return one of the contents; one in thirty is large."""
    choose = random.Random(number)
    return choose.randbytes(choose.randrange(LARGE if number % 30 == 29 else SMALL))


class Bucket:
    """What a bucket has to hold: *files* has the number of each content by its hash.

    A file is in *unsure* if the bridge was killed before it answered.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, int] = {}
        self.unsure: dict[str, int] = {}
        self.removed: set[str] = set()  # acknowledged


class Customer:
    """Uses *bridge*; *log* counts what was answered.

    *activation* returns the activation token of an address, or None if it was used.
    """

    def __init__(
        self, bridge: Bridge, activation: Callable[[str], str | None], name: str, seed: int
    ) -> None:
        self._bridge = bridge
        self._activation = activation
        self._choose = random.Random(seed)
        self._user = User(bridge, name, known=True)
        self._registered = False
        self._buckets: dict[str, Bucket] = {}
        self._unsure_buckets: set[str] = set()  # being removed when the bridge was killed
        self._gone_buckets: set[str] = set()
        self._names: set[str] = set()  # of buckets whose creation was not answered
        self._keys: dict[str, bool] = {}  # whether the bridge has to know the key
        self._unsure_keys: set[str] = set()
        self.log: Counter[str] = Counter()

    def work(self) -> None:
        """Make one request or a few, and keep what the bridge acknowledged."""
        if not self._registered:
            self._register()
        if len(self._buckets) < 2:
            self._create_bucket()
        methods: dict[Callable[[], None], int] = {
            self._upload: 40,
            self._download: 25,
            self._list: 8,
            self._remove_file: 15,
            self._create_bucket: 2,
            self._change_bucket: 3,
            self._remove_bucket: 1,
            self._add_key: 2,
            self._remove_key: 2,
            self._log_in: 2,
        }
        [method] = self._choose.choices([*methods], [*methods.values()])
        method()
        self.log[method.__name__.strip("_")] += 1

    def check(self, seen: set[str] | None = None) -> None:
        """Compare what the bridge has with what it acknowledged.

        Given *seen*, the hashes of files that were downloaded already, download the others too.
        """
        if not self._registered:
            return
        names = {bucket["id"]: bucket["name"] for bucket in self._answer("GET", "/buckets")}
        missing = self._buckets.keys() - names.keys() - self._unsure_buckets
        assert not missing, f"buckets that were acknowledged are lost: {missing}"
        back = self._gone_buckets & names.keys()
        assert not back, f"buckets that were removed are back: {back}"
        for gone in self._unsure_buckets - names.keys():
            del self._buckets[gone]
        self._unsure_buckets.clear()
        for bucket, name in names.items():
            if bucket not in self._buckets:
                assert name in self._names, f"nobody asked for the bucket {name}"
                self._buckets[bucket] = Bucket(name)
            self._check_files(bucket, seen)
        self._names.clear()
        self._check_keys()

    def _check_files(self, bucket: str, seen: set[str] | None) -> None:
        expected = self._buckets[bucket]
        found = {file["hash"]: file for file in self._answer("GET", f"/buckets/{bucket}/files")}
        missing = expected.files.keys() - found.keys()
        assert not missing, f"files that were acknowledged are lost: {missing}"
        back = (found.keys() & expected.removed) - expected.unsure.keys()
        assert not back, f"files that were removed are back: {back}"
        unknown = found.keys() - expected.files.keys() - expected.unsure.keys()
        assert not unknown, f"nobody uploaded {unknown}"
        for name, number in expected.unsure.items():
            if name in found:
                expected.files[name] = number
                expected.removed.discard(name)
        expected.unsure.clear()
        if seen is not None:
            for name in expected.files.keys() - seen:
                assert self._user.download(bucket, name) == content(expected.files[name])
                seen.add(name)

    def _check_keys(self) -> None:
        found = {entry["key"] for entry in self._answer("GET", "/keys")}
        for key in self._unsure_keys:
            self._keys[key] = key in found
        self._unsure_keys.clear()
        wrong = {key for key, known in self._keys.items() if known != (key in found)}
        assert not wrong, f"keys that were acknowledged are lost, or removed ones are back: {wrong}"

    def _register(self) -> None:
        user = self._user
        fields = {"email": user.email, "password": PASSWORD}
        reply = ask(self._bridge, "POST", "/users", json.dumps(fields))
        assert reply.status == 200 or "already" in reply.json["error"], reply
        token = self._activation(user.email)
        if token is not None:  # else it was activated, and the answer was lost
            assert ask(self._bridge, "GET", f"/activations/{token}").status == 200
        body = json.dumps({"key": user.key.public})
        reply = ask(self._bridge, "POST", "/keys", body, basic(user.email, PASSWORD))
        assert reply.status == 200 or "already" in reply.json["error"], reply
        self._keys[user.key.public] = True
        self._registered = True

    def _create_bucket(self) -> None:
        if len(self._buckets) >= MOST_BUCKETS:
            return
        name = f"bucket {self._choose.random()}"
        storage = self._choose.choice([10, None, TIGHT])
        self._names.add(name)  # until it is answered
        bucket = self._answer("POST", "/buckets", {"name": name, "storage": storage})
        self._names.discard(name)
        self._buckets[bucket["id"]] = Bucket(name)

    def _change_bucket(self) -> None:
        fields = {"transfer": self._choose.choice([30, None])}
        self._answer("PATCH", f"/buckets/{self._any_bucket()}", fields)

    def _remove_bucket(self) -> None:
        bucket = self._any_bucket()
        self._unsure_buckets.add(bucket)
        assert self._user.ask("DELETE", f"/buckets/{bucket}").status == 204
        self._unsure_buckets.discard(bucket)
        del self._buckets[bucket]
        self._gone_buckets.add(bucket)

    def _upload(self) -> None:
        bucket, number = self._any_bucket(), self._choose.randrange(CONTENTS)
        if len(self._buckets[bucket].files) >= MOST_FILES:
            return
        data = content(number)
        name = file_hash(data)
        with self._unsure_file(bucket, name, number) as settle:
            reply = self._user.upload(bucket, data)
            if reply.status in (413, 503):  # the bucket is full, or the bridge is busy
                self.log[f"{reply.status}"] += 1
                if "does not answer" in reply.json["error"]:  # it may be stored all the same
                    self._buckets[bucket].unsure[name] = number
                return
            assert (reply.status, reply.json["hash"]) == (200, name), reply
            settle(True)

    def _download(self) -> None:
        bucket = self._any_bucket()
        if files := self._buckets[bucket].files:
            name = self._choose.choice([*files])
            assert self._user.download(bucket, name) == content(files[name])

    def _list(self) -> None:
        bucket = self._any_bucket()
        found = {file["hash"] for file in self._answer("GET", f"/buckets/{bucket}/files")}
        expected = self._buckets[bucket]
        assert found - expected.unsure.keys() == expected.files.keys() - expected.unsure.keys()

    def _remove_file(self) -> None:
        bucket = self._any_bucket()
        if not (files := self._buckets[bucket].files):
            return
        name = self._choose.choice([*files])
        with self._unsure_file(bucket, name, files[name]) as settle:
            assert self._user.ask("DELETE", f"/buckets/{bucket}/files/{name}").status == 204
            settle(False)

    @contextmanager
    def _unsure_file(self, bucket: str, name: str, number: int) -> Iterator[Callable[[bool], None]]:
        """Count the file as unsure if the block raises; the block settles what is acknowledged."""
        expected = self._buckets[bucket]

        def settle(stored: bool) -> None:
            expected.files.pop(name, None)
            expected.removed.discard(name)
            if stored:
                expected.files[name] = number
            else:
                expected.removed.add(name)

        try:
            yield settle
        except BROKEN:
            expected.files.pop(name, None)
            expected.unsure[name] = number
            raise

    def _add_key(self) -> None:
        key = Key(str(self._choose.random())).public
        self._unsure_keys.add(key)
        self._answer("POST", "/keys", {"key": key})
        self._unsure_keys.discard(key)
        self._keys[key] = True

    def _remove_key(self) -> None:
        others = [
            key for key, known in self._keys.items() if known and key != self._user.key.public
        ]
        if not others:
            return
        key = self._choose.choice(others)
        self._unsure_keys.add(key)
        assert self._user.ask("DELETE", f"/keys/{key}").status == 200
        self._unsure_keys.discard(key)
        self._keys[key] = False

    def _log_in(self) -> None:
        headers = basic(self._user.email, PASSWORD)
        assert ask(self._bridge, "GET", "/keys", None, headers).status == 200

    def _any_bucket(self) -> str:
        return self._choose.choice([*self._buckets])

    def _answer(self, *request: Any) -> Any:
        reply: Reply = self._user.ask(*request)
        assert reply.status == 200, reply
        return reply.json
