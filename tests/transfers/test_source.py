"""Files are opened at the call: later changes of their path have no effect."""

# ruff: noqa: SIM115  # a file of a table is closed by the test that opens it
from __future__ import annotations

import codecs
import gzip
import io
import os
import resource
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from modes import PATIENCE, Ask
from processes import python

import pymdc
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import file_hash
from pymdc._transfers.source import Source
from pymdc.api import Bucket, Files
from pymdc.bridge import Bridge
from pymdc.testing import Account

DATA = os.urandom(300_000)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is the working directory during the test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@contextmanager
def one_worker(bridge: Bridge) -> Iterator[tuple[pymdc.Client, Callable[[], None]]]:
    """Give a client whose only worker a callback blocks, and a function that unblocks it."""
    released = threading.Event()
    with pymdc.Client(bridge.endpoint, workers=1) as client:
        Files("x", None, client=client).list(lambda _: released.wait(PATIENCE))
        yield client, released.set


def descriptors_of(path: Path) -> list[int]:
    """Return the descriptors that this process has for *path*."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{number}") == str(path):
                found.append(int(number))
    return found


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"another")
    other.rename(path)


CHANGES: list[Callable[[Path], object]] = [
    os.remove,
    replace,
    lambda path: path.rename(path.with_name("moved")),
    lambda path: shutil.rmtree(path.parent),
    lambda path: os.chdir("/"),
]


@pytest.mark.parametrize("change", CHANGES, ids=["remove", "replace", "move", "folder", "chdir"])
@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_file_may_be_moved_after_the_call(
    bridge: Bridge,
    account: Account,
    bucket: Bucket,
    here: Path,
    change: Callable[[Path], object],
    kind: Callable[[str], Any],
) -> None:
    (here / "photo.jpg").write_bytes(DATA)
    with one_worker(bridge) as (client, release):
        files = Files(bucket.bucket_id, account.key_pair, client=client)
        call = files.upload(kind("photo.jpg"), None, lambda _: None)
        change(here / "photo.jpg")
        release()
        entry = call.result(PATIENCE)
    assert (entry["filename"], entry["hash"]) == ("photo.jpg", file_hash(DATA))


def test_relative_target_is_resolved_at_the_call(
    bridge: Bridge, account: Account, bucket: Bucket, here: Path, tmp_path: Path
) -> None:
    name = bucket.files.upload(bytearray(DATA))["hash"]
    with one_worker(bridge) as (client, release):
        files = Files(bucket.bucket_id, account.key_pair, client=client)
        call = files.download(name, to="back.jpg", callback=lambda _: None)
        os.chdir(tmp_path)
        release()
        assert call.result(PATIENCE)["path"] == "back.jpg"
    assert (here / "back.jpg").read_bytes() == DATA
    assert os.listdir(here) == ["back.jpg"]


def test_link_before_dots_is_followed(
    ask: Ask, bucket: Bucket, here: Path, tmp_path: Path, few_descriptors: int
) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (here / "link").symlink_to(tmp_path / "x" / "y")
    (tmp_path / "x" / "file").write_bytes(DATA)
    (here / "file").write_bytes(b"another one")
    entry = ask(bucket.files.upload, "link/../file")
    assert entry["hash"] == file_hash(DATA)
    sources = [Source("link/../file") for _ in range(2 * few_descriptors)]
    with sources[-1].opened(CancelScope()) as late:
        assert late.read() == DATA
    sources.clear()
    ask(bucket.files.download, entry["hash"], to="link/../back")
    assert (tmp_path / "x" / "back").read_bytes() == DATA
    assert not (here / "back").exists()


def test_missing_working_directory_is_file_not_found(ask: Ask, bucket: Bucket, here: Path) -> None:
    name = bucket.files.upload(bytearray(DATA))["hash"]
    here.rmdir()
    assert isinstance(ask(bucket.files.upload, "photo.jpg"), FileNotFoundError)
    assert isinstance(ask(bucket.files.download, name, to="back.jpg"), FileNotFoundError)


def test_missing_path_of_bytes_explains_that_bytes_are_a_path(ask: Ask, bucket: Bucket) -> None:
    for path in (b"missing.jpg", b"x" * 300, b"\xff\xfe"):
        value = ask(bucket.files.upload, path)
        assert isinstance(value, OSError)
        assert "bytes are a path; content is given as a file object" in str(value)
        assert len(str(value)) < 400
    assert "bytes" not in str(ask(bucket.files.upload, "missing.jpg"))


def test_folder_as_source_is_an_error_value(ask: Ask, bucket: Bucket, tmp_path: Path) -> None:
    assert isinstance(ask(bucket.files.upload, tmp_path), IsADirectoryError)


@pytest.mark.parametrize(("name", "mimetype"), [("ü.txt", "text/plain"), (b"a.png", "image/png")])
def test_name_argument_sets_filename_and_mimetype(
    ask: Ask, bucket: Bucket, photo: Path, name: Any, mimetype: str
) -> None:
    text = name if isinstance(name, str) else name.decode()
    for source in (io.BytesIO(DATA), bytearray(DATA), photo):
        entry = ask(bucket.files.upload, source, name=name)
        assert (entry["filename"], entry["mimetype"]) == (text, mimetype)
        assert ask(bucket.files.delete, entry["hash"]) == ""


class TextOnly:
    """Reads text, and has no other attribute of a text file."""

    def read(self, size: int = -1) -> str:
        return "text"[:size]


class ReadsAll(io.BytesIO):
    """Reads everything for a size of zero."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size or -1)


def test_file_that_reads_all_for_size_zero_is_sent_whole(ask: Ask, bucket: Bucket) -> None:
    file = ReadsAll(DATA)
    file.seek(5)
    assert ask(bucket.files.upload, file)["hash"] == file_hash(DATA[5:])


TEXTS: list[Callable[[str], Any]] = [
    lambda path: os.popen("echo"),
    lambda path: open(path),
    lambda path: tempfile.NamedTemporaryFile("w+"),
    lambda path: tempfile.TemporaryFile("w+"),
    lambda path: tempfile.SpooledTemporaryFile(mode="w+"),
    lambda path: codecs.getreader("utf-8")(open(path, "rb")),
    lambda path: codecs.StreamReaderWriter(
        open(path, "rb+"), codecs.getreader("utf-8"), codecs.getwriter("utf-8")
    ),
]


@pytest.mark.parametrize("more", [{}, {"callback": print}], ids=["blocking", "callback"])
def test_text_file_as_source_is_refused_at_the_call(bucket: Bucket, photo: Path, more: Any) -> None:
    for opening in TEXTS:
        with opening(str(photo)) as file:
            with pytest.raises(TypeError, match=r"open as text; .* opened with 'rb'"):
                bucket.files.upload(file, "token", **more)
    lines: Any = TextOnly()
    with pytest.raises(TypeError, match="open as text"):
        bucket.files.upload(lines, "token", **more)


@pytest.mark.parametrize("more", [{}, {"callback": print}], ids=["blocking", "callback"])
def test_text_file_as_target_is_refused_at_the_call(
    bucket: Bucket, tmp_path: Path, more: Any
) -> None:
    writable = [lambda path: open(path, "w"), *TEXTS[2:5]]
    for opening in writable:
        with opening(str(tmp_path / "out")) as file:
            with pytest.raises(TypeError, match=r"open as text; .* opened with 'wb'"):
                bucket.files.download("0" * 40, "token", to=file, **more)
    for file in (codecs.getwriter("utf-8")(open(tmp_path / "out", "wb")), AcceptsTextOnly()):
        with file, pytest.raises(TypeError, match="open as text"):
            bucket.files.download("0" * 40, "token", to=file, **more)


class AcceptsTextOnly(io.BytesIO):
    """Accepts only text."""

    def write(self, text: Any) -> int:
        return super().write(text.encode() if isinstance(text, str) else text + "")


def test_target_open_for_reading_is_refused_at_the_call(
    bucket: Bucket, photo: Path, tmp_path: Path
) -> None:
    with gzip.open(tmp_path / "a.gz", "wb") as packed:
        packed.write(DATA)
    readers: list[Any] = [
        open(photo, "rb"),
        open(photo, "rb", buffering=0),
        gzip.open(tmp_path / "a.gz", "rb"),
        tempfile.NamedTemporaryFile("rb"),
    ]
    for file in readers:
        with file, pytest.raises(ValueError, match="not open for writing"):
            bucket.files.download("0" * 40, "token", to=file)


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_memory_is_released_after_the_upload(
    ask: Ask, bucket: Bucket, kind: Callable[[bytes], Any]
) -> None:
    for token in (None, "0" * 64):
        data = kind(DATA)
        owner = data if isinstance(data, bytearray) else data.obj
        ask(bucket.files.upload, data, token)
        if data is not owner:
            data.release()
        owner.extend(b"more")  # BufferError while a view of the memory exists


class Named(io.BytesIO):
    name = 5


def test_file_object_is_released_after_the_upload(ask: Ask, bucket: Bucket) -> None:
    file = Named(DATA)
    gone = weakref.ref(file)
    assert ask(bucket.files.upload, file, "0" * 64) == {"error": "Invalid or expired token"}
    del file
    assert gone() is None


def test_files_of_calls_that_never_ran_are_closed(bridge: Bridge, photo: Path) -> None:
    with one_worker(bridge) as (client, release):
        files = Files("x", None, client=client)
        calls = [files.upload(photo, "token", lambda _: None) for _ in range(5)]
        assert len(descriptors_of(photo)) == 5
        assert all(call.cancel() for call in calls[:4])
        with pytest.raises(TypeError, match="the callback is int"):
            files.upload(photo, "token", 5)  # type: ignore[arg-type]
        release()
    assert descriptors_of(photo) == []


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 200 + 2 * len(os.listdir("/proc/self/fd"))  # of which earlier tests use less than half
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sources_leave_half_of_the_descriptors_for_sockets(
    photo: Path, few_descriptors: int
) -> None:
    sources = [Source(photo) for _ in range(2 * few_descriptors)]
    assert descriptors_of(photo)
    assert max(descriptors_of(photo)) < few_descriptors // 2
    with sources[-1].opened(CancelScope()) as file:
        assert file.read() == DATA
    with sources[0].opened(CancelScope()) as file:
        assert file.read() == DATA


FEW = """
import os, resource, sys
import pymdc

bucket_id, key, path = sys.argv[1:]
files = pymdc.api.Files(bucket_id, pymdc.ECDSA(private_key=key))
files.list()
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
shown = lambda answer: answer if isinstance(answer, dict) else {"size": answer}
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(os.environ["HELD"]))]
got = []
calls = [files.upload(path, None, got.append) for _ in range(100)]
if held:
    os.closerange(held[0], held[-1] + 1)
for call in calls:
    call.join()
print(len(got), {str(answer.get("size", answer)) for answer in map(shown, got)})
"""


@pytest.mark.parametrize("used", ["0", "125", "all"])
def test_uploads_wait_for_descriptors(
    bridge: Bridge, account: Account, bucket: Bucket, photo: Path, used: str
) -> None:
    key = account.key_pair.get_private_key()
    settings = {"PYMDC_ENDPOINT": bridge.endpoint, "HELD": used}
    script = (
        FEW
        if used != "all"
        else FEW.replace(
            'range(int(os.environ["HELD"]))', "range(256 - len(os.listdir('/dev/fd')) - 1)"
        )
    )
    done = python("-c", script, bucket.bucket_id, key, str(photo), env=settings)
    assert (done.stdout, done.returncode) == (f"100 {{'{len(DATA)}'}}\n", 0), done.stderr


MANY = """
import os, resource, sys
import pymdc

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
bucket_id, key, folder = sys.argv[1:]
files = pymdc.api.Files(bucket_id, pymdc.ECDSA(private_key=key))
os.chdir(folder)
got = []
calls = [files.upload("small", None, got.append) for _ in range(300)]
os.chdir("/")
print(len(got) < 300)
for call in calls:
    call.join()
print(len(got), {answer["size"] for answer in got})
"""


def test_uploads_beyond_the_descriptor_limit_all_arrive(
    bridge: Bridge, account: Account, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"small")
    key = account.key_pair.get_private_key()
    settings = {"PYMDC_ENDPOINT": bridge.endpoint}
    done = python("-c", MANY, bucket.bucket_id, key, str(tmp_path), env=settings)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "True\n300 {5}\n"


def test_content_may_change_its_size_once_its_source_is_closed() -> None:
    data = bytearray(DATA)
    with Source(data).opened(CancelScope()) as file:
        with pytest.raises(BufferError):
            data.append(0)
    data.append(0)
    del file  # which is held until here, as a traceback or a generator may hold it
