"""Calls in a subinterpreter, which ends after their callbacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import python
from servers import RawServer, wait

import pymdc
from pymdc.bridge import Bridge
from pymdc.testing import Account

SHARING = pytest.param(
    "legacy",
    marks=pytest.mark.skipif(
        sys.version_info < (3, 12), reason="what has had a thread is not destroyed before 3.12"
    ),
)
ALONE = pytest.param(
    "isolated",
    marks=pytest.mark.skipif(
        sys.version_info[:2] == (3, 12), reason="importing ssl or hashlib there breaks Python 3.12"
    ),
)

PROGRAM = """
import sys

script, kind = sys.argv[1:]
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    number = interpreters.create(kind)
    failure = interpreters.exec(number, script)
else:
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated=kind == "isolated")
    failure = interpreters.run_string(number, script)
interpreters.destroy(number)
print(failure)
"""

LESSON = """
import os, pymdc, threading
from pathlib import Path

bucket = pymdc.api.Bucket(os.environ["BUCKET"], pymdc.ECDSA(None, os.environ["KEY"]))

def show(value):
    os.write(1, f"{value['name']}\\n".encode())

def again(value):
    show(value)
    assert bucket.list() == value
    bucket.list(show)

def got(file):
    assert Path(file["path"]).read_bytes() == b"photo"
    bucket.list(again)

entry = bucket.files.upload("photo.jpg")
bucket.files.download(entry["hash"], to=f"copy {threading.get_ident()}.jpg", callback=got)
"""

POOL = """
import sys
from concurrent.futures import InterpreterPoolExecutor

with InterpreterPoolExecutor(2) as pool:
    for call in [pool.submit(exec, sys.argv[1], {}) for _ in range(2)]:
        call.result()
"""

LATE = """
import pymdc

with pymdc.Client(total=0.3) as client:
    keys = pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client))
    keys.list(lambda value: print(type(value).__name__, flush=True)).join()
    print(type(keys.list()).__name__, flush=True)
"""


@pytest.fixture
def lesson(
    bridge: Bridge, account: Account, bucket: pymdc.api.Bucket, tmp_path: Path
) -> dict[str, object]:
    """Give how `python` runs LESSON."""
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    key = account.key_pair.get_private_key()
    return {
        "cwd": tmp_path,
        "env": {"PYMDC_ENDPOINT": bridge.endpoint, "BUCKET": bucket.list()["id"], "KEY": key},
    }


@pytest.mark.parametrize("kind", [ALONE, SHARING])
def test_calls_of_a_subinterpreter_finish_before_it_ends(
    kind: str, lesson: dict[str, object]
) -> None:
    done = python("-c", PROGRAM, LESSON, kind, **lesson)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "photos\nphotos\nNone\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there is no such pool before Python 3.14")
def test_calls_work_in_a_pool_of_interpreters(lesson: dict[str, object]) -> None:
    done = python("-c", POOL, LESSON, **lesson)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "photos\n" * 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no thread is to be had there before 3.12")
@pytest.mark.parametrize("kind", [ALONE, SHARING])
def test_calls_of_a_subinterpreter_time_out(kind: str) -> None:
    with RawServer(wait) as server:
        done = python("-c", PROGRAM, LATE, kind, env={"PYMDC_ENDPOINT": server.endpoint})
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "Timeout\nTimeout\nNone\n"
