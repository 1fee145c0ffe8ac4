"""The examples and a script of 2016 work, and programs end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from select import select

import pytest
from processes import MINUTE, ROOT, bridge_process, python

from pymdc.bridge import Bridge

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Give a folder from which Python does not import the checkout."""
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name in ("tour.py", "callbacks.py")])
@pytest.mark.parametrize("given", [False, True], ids=["its own file", "a given file"])
def test_example_ends_with_success(name: str, given: bool, outside: Path) -> None:
    (outside / "given.bin").write_bytes(b"given")
    done = python(ROOT / "examples" / name, *(["given.bin"] if given else []), cwd=outside)
    assert done.stderr == ""
    assert done.returncode == 0
    size = 5 if given else 20_000_000
    assert f"Success: {size} bytes went up and came back, byte for byte.\n" in done.stdout


@pytest.mark.parametrize("name", ["tour.py", "callbacks.py"])
def test_example_names_the_error_of_a_missing_file(name: str, outside: Path) -> None:
    done = python(ROOT / "examples" / name, "missing.bin", cwd=outside)
    assert done.returncode == 1
    assert "No such file or directory" in done.stdout
    assert "ends here" in done.stderr


LESSON_2016 = """
import sys
import pymdc

user = pymdc.api.users.Users(u"old@example.com", "pass")
print(user.register())
print(user.activate(sys.stdin.readline().strip()))

keys = pymdc.api.keys.Keys(user)
print(keys.create())
key_pair = keys.key_pairs[0]
print(keys.list())

buckets = pymdc.api.buckets.Buckets(key_pair)
created = buckets.create("photos", 10, 30, [key_pair])
print(created)
print(buckets.list())

bucket = pymdc.api.buckets.Bucket(created["id"], key_pair)
print(bucket.list())
print(bucket.patch({"name": "renamed"}))

token = bucket.files.token("PUSH")
print(token)
uploaded = bucket.files.upload("photo.jpg", token["token"])
print(uploaded)
print(bucket.files.list())
token = bucket.files.token("PULL")
print(bucket.files.download(uploaded["hash"], token["token"]))
print(bucket.delete())
print(keys.delete(key_pair))
"""

CALLBACKS_2016 = """
import sys
import pymdc

def show(result):
    if isinstance(result, Exception):
        print("error: %s" % result)
    else:
        print(result)

user = pymdc.api.Users("old@example.com", "pass")
user.register(show).join()
user.activate(sys.stdin.readline().strip(), show).join()
keys = pymdc.api.Keys(user)
keys.create(None, show).join()
key_pair = keys.key_pairs[0]
made = []

def created(result):
    made.append(result["id"])
    show(result)

buckets = pymdc.api.Buckets(key_pair)
buckets.create("photos", 10, 30, [key_pair], created).join()
bucket = pymdc.api.Bucket(made[0], key_pair)
threads = [bucket.list(show), bucket.files.list(show), buckets.list(show)]
for thread in threads:
    thread.join()
    assert not thread.is_alive()

def got_token(result):
    bucket.files.upload("photo.jpg", result["token"], show)

bucket.files.token("PUSH", got_token)
"""


@pytest.mark.parametrize("script", [LESSON_2016, CALLBACKS_2016], ids=["lesson", "callbacks"])
def test_script_of_2016_runs_unchanged(script: str, outside: Path, tmp_path: Path) -> None:
    (outside / "script.py").write_text(script)
    (outside / "photo.jpg").write_bytes(b"photo")
    with bridge_process(tmp_path / "data") as (endpoint, bridge):
        command = [sys.executable, "-W", "error", "-u", "script.py"]
        environment = {**os.environ, "PYMDC_ENDPOINT": endpoint}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=outside, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        ) as process:
            assert bridge.stdout
            is_registered = select([bridge.stdout], [], [], MINUTE)[0]
            assert is_registered, process.communicate(timeout=MINUTE)[1]
            link = bridge.stdout.readline()
            printed, errors = process.communicate(link.strip()[-64:] + "\n", timeout=MINUTE)
    assert (errors, process.returncode) == ("", 0)
    assert "'activated': True" in printed
    assert "'filename': 'photo.jpg'" in printed
    assert "error" not in printed


CHAIN = """
import itertools
import threading
import pymdc

user = pymdc.api.Users("nobody@example.com", "pass")
numbers = itertools.count(1)
kinds = set()

def step(answer):
    kinds.add(type(answer).__name__)
    main = threading.main_thread()
    main.join()
    number = next(numbers)
    if number < 20:
        user.register(step)
    elif number == 20:
        print(main.is_alive(), user.register(), kinds)

for _ in range({at_once}):
    user.register(step)
"""


@pytest.mark.parametrize("workers", [1, 32])
@pytest.mark.parametrize("at_once", [1, 5])
def test_chained_calls_continue_after_main_thread_ended(
    bridge: Bridge, outside: Path, workers: int, at_once: int
) -> None:
    settings = {"PYMDC_ENDPOINT": bridge.endpoint, "PYMDC_WORKERS": str(workers)}
    done = python("-c", CHAIN.replace("{at_once}", str(at_once)), cwd=outside, env=settings)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "False {'error': 'Email is already registered'} {'dict'}\n"


def test_program_without_outstanding_calls_ends_at_once(bridge: Bridge, outside: Path) -> None:
    script = (
        "import threading, pymdc\n"
        "user = pymdc.api.Users('x@example.com', 'pass')\n"
        "user.register()\n"
        "user.register(print).join()\n"
        "print([t.name for t in threading.enumerate() if not t.daemon])\n"
    )
    done = python("-c", script, cwd=outside, env={"PYMDC_ENDPOINT": bridge.endpoint})
    assert (done.stderr, done.returncode) == ("", 0)
    assert "MainThread" in done.stdout


@pytest.mark.parametrize(("name", "value"), [("PYMDC_WORKERS", "many"), ("PYMDC_TIMEOUT", "1,x")])
def test_invalid_variable_is_named(name: str, value: str, outside: Path) -> None:
    script = "import pymdc; pymdc.api.Users('a').register()"
    done = python("-c", script, cwd=outside, env={name: value})
    assert done.returncode == 1
    assert f"ValueError: the variable {name} is '{value}'; expected a number" in done.stderr


def test_variables_set_the_default_client(outside: Path) -> None:
    script = (
        "from pymdc._default import default; d = default()\n"
        "print(d.endpoint, d._transport.timeout, d._pool._queue._size, d is default())"
    )
    settings = {
        "PYMDC_ENDPOINT": "http://127.0.0.1:9/",
        "PYMDC_WORKERS": "3",
        "PYMDC_TIMEOUT": "2.5",
    }
    done = python("-c", script, cwd=outside, env=settings)
    assert done.stdout == "http://127.0.0.1:9 (2.5, 2.5) 3 True\n"
