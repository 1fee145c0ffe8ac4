"""The bytes of the shards, as objects in a bucket of an S3 store."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pymdc.bridge.errors import StoreError, UnavailableError, missing
from pymdc.bridge.settings import (
    BATCH,
    OBJECT_BLOCK,
    SET_ASIDE,
    STORE_CONNECT_SECONDS,
    STORE_FIRST_PAUSE,
    STORE_LAST_PAUSE,
    STORE_RETRY_SECONDS,
    STORE_SECONDS,
    STORE_SIZES_AT_ONCE,
    is_origin,
)
from pymdc.bridge.storage.disk import DiskFullError
from pymdc.bridge.storage.objects import INSTALLATION, StoredObject, is_object_name

if TYPE_CHECKING:
    import obstore
    from obstore import GetOptions, GetResult
    from obstore.store import ClientConfig, RetryConfig, S3Config

T = TypeVar("T")

_CHECK = "check"  # an object that is stored to see whether objects can be
_MANY = 1000  # tries; their time is what is limited
_RIGHTS = "to read, list, write and delete"
_S3 = f"those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY {_RIGHTS}", "one that speaks S3"
_OTHER = f"those that obstore reads for it {_RIGHTS}", "one that is set up as obstore says"
_FULL = {"QuotaExceeded", "XMinioStorageFull", "507"}
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "401", "403"}
_BUSY = {"SlowDown", "RequestTimeout", "408", "429"}
_NO_KEYS = ("/latest/api/token", "/latest/meta-data/")  # where machines of Amazon have theirs
_REASONS = {
    "dns error": "its name is not known",
    "Connection refused": "connection refused",
    "certificate": "its certificate is not accepted",
    "TimedOut": "no answer in time",
    "deadline has elapsed": "no answer in time",
}
_log = logging.getLogger("pymdc.bridge")


class S3Store:
    """Objects at *url*, such as ``s3://bucket/prefix``; obstore takes others, such as ``gs:``.

    *environment* has the variables that the tools of AWS read. Nothing is asked of the store yet.
    """

    is_remote = True

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(missing(error, "bridge,postgres")) from None
        self._obstore = obstore
        self._url = url.rstrip("/")
        self._bucket = urlsplit(url).netloc
        self._place = self._url
        config: S3Config = {}
        is_s3 = url.startswith("s3:")
        self._keys_expected, self._store_expected = _S3 if is_s3 else _OTHER
        if is_s3:
            config = _config(environment)
            self._place += f" at {config['endpoint']}" if "endpoint" in config else ""
        self._store = self.ask(
            from_url,
            self._url,
            config=config or None,
            client_options=_client(),
            retry_config=_retries(),
        )

    def prepare(self) -> None:
        """Raise an exception unless objects can be listed, stored and deleted."""
        self.check()
        self.put(_CHECK, [memoryview(b"1")])
        self.ask(self._obstore.delete, self._store, [_CHECK])

    def check(self) -> None:
        """Raise an exception if the store does not answer, or refuses."""
        # A listing: the answer to a HEAD does not say whether it is the bucket that is missing.
        for _ in self._list(_CHECK):
            pass

    def free(self) -> None:
        """Return None: nobody knows what is free."""

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all objects, in batches."""
        for entries in self.entries():
            yield [entry.name for entry in entries]

    def entries(self) -> Iterator[list[StoredObject]]:
        """Yield all objects, in batches."""
        for found in self._list(None):
            entries = [
                StoredObject(meta["path"], meta["size"], _milliseconds(meta["last_modified"]))
                for meta in found
                if is_object_name(meta["path"])
            ]
            if entries:
                yield entries

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None if it is missing."""
        try:
            return self._head(name)["size"]
        except FileNotFoundError:
            return None

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the sizes of several objects."""
        if len(names) < 2:
            return [self.size(name) for name in names]
        with ThreadPoolExecutor(STORE_SIZES_AT_ONCE) as pool:
            return [*pool.map(self.size, names)]

    def stored_at(self, name: str) -> int:
        """Return when an object was stored, in milliseconds since 1970."""
        return _milliseconds(self._head(name)["last_modified"])

    def put(self, name: str, blocks: Iterable[memoryview]) -> None:
        """Store *blocks* as one object; they are held in memory.

        What *blocks* raises is raised, and nothing is stored.
        """
        parts = [*blocks]
        data = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        try:
            # In one request, of which nothing is left if it fails.
            self.ask(self._obstore.put, self._store, name, data, use_multipart=False)
        except FileNotFoundError:
            raise self._missing_bucket() from None

    def sync(self) -> None:
        """Do nothing: what the store has acknowledged, it keeps."""

    def open(self, name: str, start: int = 0) -> S3Reader:
        """Return a reader of an object from *start* on."""
        return S3Reader(self, name, start)

    def blocks(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of an object, in blocks."""
        with closing(self.open(name)) as reader:
            while block := reader.read(OBJECT_BLOCK):
                yield block

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, many at a time; log if some cannot be deleted."""
        these = [*names]
        if not these:
            return
        try:
            self.ask(self._obstore.delete, self._store, these)
        except (UnavailableError, OSError) as error:
            _log.error("of %d objects, not all were deleted: %s", len(these), error)

    def set_aside(self, names: Iterable[str]) -> str:
        """Move objects below a prefix of their own, and return its URL."""
        for name in names:
            self.ask(self._obstore.rename, self._store, name, f"{SET_ASIDE}/{name}")
        return f"{self._url}/{SET_ASIDE}"

    def installation(self) -> str | None:
        """Return the id of the installation; None if there is none."""
        try:
            return b"".join(self.blocks(INSTALLATION)).decode("ascii")
        except FileNotFoundError:
            return None

    def set_installation(self, identity: str) -> None:
        """Store the id of the installation."""
        self.put(INSTALLATION, [memoryview(identity.encode("ascii"))])

    def delete_half_written(self) -> None:
        """Do nothing: no object is half-written."""

    def _head(self, name: str) -> obstore.ObjectMeta:
        return self.ask(self._obstore.head, self._store, name)

    def get(self, name: str, start: int) -> GetResult | None:
        """Begin to get an object from *start* on; return None if it ends there or before."""
        options: GetOptions = {"range": {"offset": start}} if start else {}
        try:
            return self.ask(self._obstore.get, self._store, name, options=options)
        except _RangeError:
            return None
        except FileNotFoundError as error:
            error.filename = f"{self._url}/{name}"
            raise

    def _list(self, prefix: str | None) -> Iterator[Sequence[obstore.ObjectMeta]]:
        batches = iter(self._obstore.list(self._store, prefix, chunk_size=BATCH))
        while (found := self.ask(next, batches, None)) is not None:
            yield found

    def ask(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function of obstore; its errors have texts of the store, perhaps with keys."""
        try:
            return function(*args, **options)
        except Exception as error:  # noqa: BLE001  # raised below, without what caused it
            fault = self._fault(error)
        raise fault

    def _fault(self, error: Exception) -> Exception:
        """Return what to raise instead of an *error* of obstore."""
        text = str(error)
        status = re.search(r"status code: (\d{3})", text)
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        codes = [found[1] for found in (status, code) if found]
        answer = f"it answered {' '.join(codes)}"
        if "NoSuchBucket" in codes:
            return self._missing_bucket()
        if any(place in text for place in _NO_KEYS):
            return self._refusal("there are no keys for it", self._keys_expected)
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if "416" in codes:
            return _RangeError()
        if _FULL.intersection(codes):
            return DiskFullError(f"there is no room in the store {self._place}")
        if _WRONG_KEYS.intersection(codes):
            return self._refusal(f"{answer}, so it refuses the keys", self._keys_expected)
        if _BUSY.intersection(codes) or (status and status[1].startswith("5")):
            return self.silence(answer)
        if status:
            return self._refusal(answer, self._store_expected)
        if "HTTP error" in text or "reqwest" in text:
            reasons = (reason for sign, reason in _REASONS.items() if sign in text)
            return self.silence(next(reasons, "the connection was lost"))
        return self._refusal(
            f"its answer is a {type(error).__name__} of obstore", self._store_expected
        )

    def silence(self, reason: str) -> UnavailableError:
        """Return the error for a store that does not answer."""
        return UnavailableError(f"the store {self._place} did not answer: {reason}")

    def _missing_bucket(self) -> StoreError:
        expected = "a bucket that exists: the bridge makes none"
        return self._refusal(f"the bucket {self._bucket} is missing", expected)

    def _refusal(self, fault: str, expected: str) -> StoreError:
        return StoreError(f"the store {self._place} can't be used: {fault}; expected {expected}")


class _RangeError(Exception):
    """The object ends before what was asked for."""


class S3Reader:
    """Reads an object by one request, and by another one if the answer breaks off."""

    def __init__(self, store: S3Store, name: str, position: int) -> None:
        self._store = store
        self._name = name
        self._position = position
        self._end: int | None = None
        self._stream: Iterator[bytes] | None = None

    def read(self, size: int) -> memoryview:
        """Return the next bytes, about *size*, at least one; nothing at the end."""
        if self._stream is not None:
            try:
                return self._pull(self._stream)
            except UnavailableError:
                pass  # a slow client: the store ends what is idle, or was started again
        return self._pull(self._begin(size))

    def close(self) -> None:
        """End the request."""
        self._stream = None

    def _begin(self, size: int) -> Iterator[bytes]:
        result = self._store.get(self._name, self._position)
        if result is None:
            self._end = self._position
            return iter(())
        self._end = result.meta["size"]
        self._stream = iter(result.stream(size))
        return self._stream

    def _pull(self, stream: Iterator[bytes]) -> memoryview:
        block = self._store.ask(next, stream, b"")
        if not block and self._position != self._end:
            raise self._store.silence("the connection was lost")
        self._position += len(block)
        return memoryview(block)


def _config(environment: Mapping[str, str]) -> S3Config:
    """Return what the variables say; obstore reads some others by itself."""
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    config: S3Config = {"region": region or "us-east-1"}
    if endpoint := _endpoint(environment):
        config["endpoint"] = endpoint
    if key := environment.get("AWS_ACCESS_KEY_ID"):
        config["access_key_id"] = key
        config["secret_access_key"] = environment.get("AWS_SECRET_ACCESS_KEY", "")
        if token := environment.get("AWS_SESSION_TOKEN"):
            config["session_token"] = token
    return config


def _endpoint(environment: Mapping[str, str]) -> str | None:
    """Return the URL of the store, without a slash at its end; None is Amazon's own."""
    for name in "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL":
        if endpoint := environment.get(name):
            if not is_origin(endpoint):  # its value may hold a password
                raise StoreError(f"{name} is no URL of a store; expected http[s]://HOST[:PORT]")
            return endpoint.rstrip("/")
    return None


def _client() -> ClientConfig:
    return {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=STORE_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=STORE_SECONDS),
        "timeout": timedelta(days=1),  # a slow client may read a shard for long
        "user_agent": "pymdc-bridge",
    }


def _retries() -> RetryConfig:
    return {
        "max_retries": _MANY,
        "retry_timeout": timedelta(seconds=STORE_RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=STORE_FIRST_PAUSE),
            "max_backoff": timedelta(seconds=STORE_LAST_PAUSE),
            "base": 2,
        },
    }


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
