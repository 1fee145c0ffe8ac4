"""Progress is reported on the transfer's worker and never decreases."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import DATA, HASH, FakeBridge, send_damaged
from modes import Ask

import pymdc
from pymdc import exceptions
from pymdc._transfers.progress import Progress
from pymdc.api import Bucket

MANY = bytes(5_000_000)


class ProgressRecorder:
    """Records the reports, and the threads that they come from."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int | None]] = []
        self.threads: set[str] = set()

    def __call__(self, done: int, total: int | None) -> None:
        self.reports.append((done, total))
        self.threads.add(threading.current_thread().name)

    def check(self, total: int) -> None:
        """Check that the reports cover the whole transfer."""
        done = [number for number, _ in self.reports]
        assert done == sorted(done)
        assert self.reports.count((total, total)) == 1
        assert self.reports[-1] == (total, total)
        assert {number for _, number in self.reports} == {total}
        assert self.threads == {"pymdc-worker"}


@pytest.mark.parametrize("size", [0, 1, len(MANY)])
def test_progress_of_upload_and_download_is_reported(
    ask: Ask, bucket: Bucket, tmp_path: Path, size: int
) -> None:
    up, down = ProgressRecorder(), ProgressRecorder()
    entry = ask(bucket.files.upload, bytearray(MANY[:size]), progress=up)
    up.check(size)
    ask(bucket.files.download, entry["hash"], to=tmp_path / "back", progress=down)
    down.check(size)


def test_unknown_total_is_none(ask: Ask, tmp_path: Path) -> None:
    recorder = ProgressRecorder()
    with FakeBridge("operation") as fake, pymdc.Client(fake.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        ask(files.download, HASH, to=tmp_path / "back", progress=recorder)
    *before, last = recorder.reports
    assert last == (len(DATA), len(DATA))
    assert before
    assert {total for _, total in before} == {None}


def test_progress_is_throttled_and_leaves_the_end_to_finish() -> None:
    seconds = iter([0.0, 0.01, 0.04, 0.06, 0.2])
    reports: list[tuple[int, int | None]] = []
    progress = Progress(lambda *numbers: reports.append(numbers), clock=lambda: next(seconds))
    progress.total = 100
    for done in (0, 10, 20, 30, 40, 40, 5, 100, 50):
        progress.report(done)
    assert reports == [(10, 100), (40, 100), (50, 100)]
    progress.finish(100)
    assert reports[-1] == (100, 100)


def test_failed_transfer_does_not_report_completion(ask: Ask, tmp_path: Path) -> None:
    recorder = ProgressRecorder()
    with FakeBridge() as fake, pymdc.Client(fake.endpoint, channels=1) as client:
        fake.handlers[10] = send_damaged
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, HASH, to=tmp_path / "back", progress=recorder)
    assert type(value) is exceptions.IntegrityError
    assert recorder.reports
    assert (len(DATA), len(DATA)) not in recorder.reports


ERRORS = [
    ZeroDivisionError("mine"),
    OSError(5, "mine"),
    exceptions.ConnectionLost("mine"),
    exceptions.ChannelError("mine", 400, "mine"),
    exceptions.BridgeError({"error": "mine"}),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_exception_of_progress_stops_transfer_and_is_the_value(
    ask: Ask, bucket: Bucket, tmp_path: Path, error: Exception
) -> None:
    calls: list[int] = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        raise error

    assert ask(bucket.files.upload, io.BytesIO(MANY), progress=stop) is error
    assert bucket.files.list() == []
    token = bucket.files.token("PUSH")["token"]
    assert ask(bucket.files.upload, io.BytesIO(MANY), token, progress=stop) is error
    assert bucket.files.list() == []
    with FakeBridge() as fake, pymdc.Client(fake.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        assert ask(files.download, HASH, to=tmp_path / "back", progress=stop) is error
    assert not (tmp_path / "back").exists()
    assert len(calls) == 3
    assert error.__cause__ is None


@pytest.mark.parametrize("method", [pymdc.api.Files.upload, pymdc.api.Files.download])
def test_progress_must_be_a_function(method: Callable[..., Any]) -> None:
    files = pymdc.api.Files("b", pymdc.ECDSA())
    with pytest.raises(TypeError, match="progress is int; expected a function of two numbers"):
        method(files, "name", progress=5)


def test_progress_without_a_total_reports_none() -> None:
    recorder = ProgressRecorder()
    Progress(recorder).report(5)
    assert recorder.reports == [(5, None)]
