"""`pymdc.progress_bar` on real terminals, with rich and without it."""

from __future__ import annotations

import importlib.util
import io
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import HASH, FakeBridge, send_damaged
from modes import PATIENCE, Ask
from processes import python
from screens import Screen
from servers import HoldingServer, read_request

import pymdc
from pymdc import exceptions
from pymdc._progress_bar import ProgressBar
from pymdc.api import Bucket

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*3[\d;]*m")
KINDS = ["plain", "rich"]
BEGIN = "import sys\n{kind}\nimport pymdc\n"
LINES = """
photo, text, rest = (pymdc.progress_bar.begin(name) for name in {names})
photo(250_000, 1_000_000), text(30, 60), rest(3_500_000, None)
sys.__stdin__.readline()
photo(1_000_000, 1_000_000)
photo.end()
text.end()
sys.__stdin__.readline()
rest.end()
print("over")
"""


def program(kind: str, script: str, **values: Any) -> str:
    if kind == "rich" and importlib.util.find_spec("rich") is None:
        pytest.skip("rich is not installed")
    return BEGIN.format(kind="" if kind == "rich" else "sys.modules['rich'] = None") + (
        script.format(**values)
    )


def holds(*texts: str) -> Any:
    """Return a function that says whether each of *texts* is in a row, in this order."""

    def check(rows: list[str]) -> bool:
        found = [row for text in texts for row in rows if text in row]
        return found == [row for row in rows if any(text in row for text in texts)] and (
            len(found) >= len(texts)
        )

    return check


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["colour", "NO_COLOR"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_transfer_has_a_line_and_only_complete_ones_stay(
    kind: str, environment: dict[str, str]
) -> None:
    script = program(kind, LINES, names=["photo.jpg", "[red]\x1b[31m.txt", "rest"])
    with Screen(script, environment) as screen:
        screen.until(holds("photo.jpg", r"[red]\x1b[31m.txt", "rest"))
        screen.press(b"\n")
        # Both at once: a program that draws has written some of its lines, and not yet the others.
        drawn = holds("100 % 1 MB", "rest")
        screen.until(lambda rows: drawn(rows) and "[red]" not in str(rows))
        screen.press(b"\n")
        rows = screen.to_the_end()
    assert len(rows) == 2
    assert rows[0].startswith("photo.jpg")
    assert "100 % 1 MB" in rows[0]
    assert rows[1] == "over"
    assert not screen.cursor_hidden
    assert b"\x1b[?25l" not in screen.raw
    assert bool(COLOUR.search(screen.raw)) == (kind == "rich" and not environment)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["colour", "NO_COLOR"])
@pytest.mark.parametrize("kind", KINDS)
def test_amounts_stand_in_one_column(kind: str, environment: dict[str, str]) -> None:
    script = """
lines = [pymdc.progress_bar.begin(name) for name in ("blau.jpg", "gru\u0308n.jpg", "rot.jpg")]
for line, done in zip(lines, (10, 50, 90)):
    line(done, 100)
pymdc.progress_bar._next = 0
line(90, 100)
sys.__stdin__.readline()
"""
    with Screen(program(kind, script), environment) as screen:
        rows = screen.until(holds("10 %", "50 %", "90 %"))
        screen.press(b"\n")
    assert len({row.index(" %") for row in rows}) == 1


@pytest.mark.parametrize("columns", [1, 8, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_terminal_shows_the_end_of_what_fits(kind: str, columns: int) -> None:
    script = program(kind, LINES, names=["a photo with a long name.jpg", "日本語.txt", "rest"])
    with Screen(script, {}, columns) as screen:
        screen.press(b"\n\n")
        rows = screen.to_the_end()
    assert "".join(rows).endswith("over")
    assert screen.process.returncode == 0
    assert len(rows) <= (2 if columns > 1 else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_more_transfers_than_lines_do_not_scroll_the_screen(kind: str) -> None:
    script = """
lines = [pymdc.progress_bar.begin(f"file {{n}}") for n in range(20)]
for round in range(5):
    for line in lines:
        line(round, 10)
    pymdc.progress_bar._next = 0
for line in lines:
    line.end()
print("over")
"""
    with Screen(program(kind, script), {}, lines=8) as screen:
        assert screen.to_the_end() == ["over"]


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_and_downloads_draw_lines(kind: str, bucket: Bucket) -> None:
    script = """
import os
key_pair = pymdc.ECDSA(private_key=os.environ["KEY"])
files = pymdc.api.Bucket(os.environ["BUCKET"], key_pair).files
bar = pymdc.progress_bar
calls = [
    files.upload(bytearray([n]) * 100_000, callback=lambda answer: None, name=name, progress=bar)
    for n, name in enumerate(["one.txt", "two.txt"])
]
entries = [call.result() for call in calls]
files.download(entries[0]["hash"], to=os.environ["BACK"], progress=bar)
files.upload(b"missing.txt", progress=bar)
files.upload(bytearray(5), "not a token", name="refused.txt", progress=bar)
print("over")
"""
    environment = {
        "KEY": bucket.key_pair.get_private_key(),  # type: ignore[union-attr]  # it is an ECDSA
        "BUCKET": bucket.bucket_id,
        "PYMDC_ENDPOINT": bucket._client.endpoint,
        "BACK": "/dev/null/back.txt",
    }
    with Screen(program(kind, script.replace("{", "{{").replace("}", "}}")), environment) as screen:
        rows = screen.to_the_end()
    assert sorted(row.split()[0] for row in rows) == ["one.txt", "over", "two.txt"]
    assert str(rows).count("100 % 100 KB") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_removes_the_line_and_leaves_the_cursor(kind: str) -> None:
    script = """
files, bar = pymdc.api.Files("b", None), pymdc.progress_bar
try:
    files.upload(bytearray(9), "token", name="a.txt", progress=bar)
except KeyboardInterrupt:
    print("interrupted")
"""
    with HoldingServer(read_request) as server:
        server.released.set()
        with Screen(program(kind, script), {"PYMDC_ENDPOINT": server.endpoint}) as screen:
            screen.until(holds("a.txt"))
            assert server.held.wait(PATIENCE)
            screen.process.send_signal(signal.SIGINT)
            assert screen.to_the_end() == ["interrupted"]
            assert screen.process.returncode == 0
            assert not screen.cursor_hidden


QUIET = """
line = pymdc.progress_bar.begin("a.txt")
line(1, 2)
line.end()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_where_there_is_no_terminal(kind: str) -> None:
    done = python("-c", program(kind, QUIET))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    with Screen(program(kind, QUIET), {"TERM": "dumb"}) as screen:
        assert screen.to_the_end() == []


@pytest.mark.parametrize("terminal", ["None", "open('/dev/full', 'w')", "Closing()"])
@pytest.mark.parametrize("kind", KINDS)
def test_broken_stderr_raises_nothing(kind: str, terminal: str) -> None:
    script = """
import io

class Closing(io.StringIO):
    def isatty(self):
        self.close()
        return True

sys.stderr = {terminal}
if sys.stderr:
    sys.stderr.isatty = lambda: True
""" + QUIET.replace("{", "{{")
    done = python("-c", program(kind, script, terminal=terminal) + "sys.stderr = None\n")
    assert (done.stdout, done.returncode) == ("", 0)


def test_rich_is_imported_only_for_a_terminal() -> None:
    done = python("-c", BEGIN.format(kind="") + QUIET + "assert 'rich' not in sys.modules")
    assert (done.stderr, done.returncode) == ("", 0)


def test_progress_bar_ends_by_itself_in_many_threads() -> None:
    bar = ProgressBar()

    def transfer() -> None:
        for _ in range(100):
            line = bar.begin("name")
            line(1, 1)
            line.end()

    threads = [threading.Thread(target=transfer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert bar._lines == []


class Recorder:
    """Records what a transfer tells an object with ``begin()``."""

    def __init__(self, **failures: Exception) -> None:
        self.told: list[Any] = []
        self._failures = failures

    def _tell(self, what: str, *values: Any) -> None:
        self.told.append((what, *values))
        if what in self._failures:
            raise self._failures[what]

    def begin(self, name: str) -> Recorder:
        self._tell("begin", name, threading.current_thread().name)
        return self

    def __call__(self, done: int, total: int | None) -> None:
        self._tell("report", done, total)

    def end(self) -> None:
        self._tell("end")


WORKER = "pymdc-worker"


def test_observer_is_told_name_and_end(ask: Ask, bucket: Bucket, tmp_path: Path) -> None:
    up, to_path, to_file = Recorder(), Recorder(), Recorder()
    entry = ask(bucket.files.upload, bytearray(b"data"), name="data.txt", progress=up)
    ask(bucket.files.download, entry["hash"], to=tmp_path / "back.txt", progress=to_path)
    ask(bucket.files.download, entry["hash"], to=io.BytesIO(), progress=to_file)
    rest = [("report", 4, 4), ("end",)]
    assert up.told == [("begin", "data.txt", WORKER), *rest]
    assert to_path.told == [("begin", "back.txt", WORKER), *rest]
    assert to_file.told == [("begin", entry["hash"], WORKER), *rest]


def test_observer_is_told_the_end_of_failed_transfers(
    ask: Ask, bucket: Bucket, tmp_path: Path
) -> None:
    refused, missing, damaged = Recorder(), Recorder(), Recorder()
    assert "error" in ask(bucket.files.upload, bytearray(1), "no token", progress=refused)
    ask(bucket.files.upload, tmp_path / "missing", progress=missing)
    with FakeBridge() as fake, pymdc.Client(fake.endpoint, channels=1) as client:
        fake.handlers[10] = send_damaged
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, HASH, to=tmp_path / "back", progress=damaged)
    assert type(value) is exceptions.IntegrityError
    for recorder in (refused, missing, damaged):
        assert recorder.told[0][0] == "begin"
        assert recorder.told[-1] == ("end",)


@pytest.mark.parametrize("when", ["begin", "report", "end"])
def test_exception_of_observer_is_the_value(ask: Ask, bucket: Bucket, when: str) -> None:
    error = ZeroDivisionError(when)
    recorder = Recorder(**{when: error})
    assert ask(bucket.files.upload, bytearray(b"data"), progress=recorder) is error
    assert [told[0] for told in recorder.told].count(when) == 1


def test_exception_at_the_end_does_not_replace_the_failure(ask: Ask, bucket: Bucket) -> None:
    recorder = Recorder(end=ZeroDivisionError("end"))
    value = ask(bucket.files.upload, b"missing.txt", progress=recorder)
    assert type(value) is FileNotFoundError


def test_observer_may_return_a_plain_function(ask: Ask, bucket: Bucket) -> None:
    class Observer:
        def begin(self, name: str) -> Any:
            return lambda *numbers: seen.append((name, numbers))

    seen: list[Any] = []
    ask(bucket.files.upload, bytearray(b"data"), name="data.txt", progress=Observer())
    assert seen == [("data.txt", (4, 4))]
