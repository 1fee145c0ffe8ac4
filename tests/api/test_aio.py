"""The classes of `pymdc.aio`: coroutines over the same workers."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from modes import AT_ONCE, PACKAGE, PATIENCE
from processes import python
from servers import ANSWER, HoldingServer, RawServer, answering, read_request, written

import pymdc
from pymdc import aio, api, exceptions
from pymdc.bridge import Bridge

SECRET = "5ecret" * 4
NOUNS = [aio.Users, aio.Keys, aio.Buckets, aio.Bucket, aio.Files]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


@pytest.fixture
def photos(bucket: api.Bucket, client: pymdc.Client) -> aio.Bucket:
    return aio.Bucket(bucket.bucket_id, bucket.key_pair, client=client)


def test_whole_lesson_is_awaited(bridge: Bridge, tmp_path: Path) -> None:
    path, back = tmp_path / "photo.jpg", tmp_path / "back.jpg"
    path.write_bytes(bytes(1_000_000))

    async def lesson() -> None:
        async with aio.Client(bridge.endpoint) as client:
            user = aio.Users("aio@example.com", "pass", client=client)
            await user.register()
            await user.activate(bridge.activation_key(user.username))
            keys = aio.Keys(user)
            await keys.create()
            pair = keys.key_pairs[0]
            made = await aio.Buckets(pair, client=client).create("photos", 1, 1, [])
            bucket = aio.Bucket(made["id"], pair, client=client)
            assert (await bucket.list())["name"] == "photos"
            entry = await bucket.files.upload(path)
            await bucket.files.download(entry["hash"], to=back)
            assert await aio.REST("GET", "/buckets", auth=pair, client=client) == [made]
            assert await bucket.files.delete(entry["hash"]) == ""

    run(lesson())
    assert back.read_bytes() == path.read_bytes()


def test_every_call_is_a_coroutine_function_without_callback() -> None:
    functions: dict[str, Any] = {"REST": (pymdc.rest.REST, aio.REST)}
    for noun in NOUNS:
        base: Any = noun.__mro__[1]
        for name, method in inspect.getmembers(base, inspect.isfunction):
            if name[0] != "_" and "callback" in inspect.signature(method).parameters:
                functions[f"{noun.__name__}.{name}"] = (method, getattr(noun, name))
    assert len(functions) > 15
    for name, (blocking, coroutine) in functions.items():
        assert inspect.iscoroutinefunction(coroutine), name
        expected = [each for each in inspect.signature(blocking).parameters if each != "callback"]
        assert [*inspect.signature(coroutine).parameters] == expected
        assert "callback" not in str(coroutine.__doc__)
        first_lines = [str(inspect.getdoc(each)).splitlines()[0] for each in (blocking, coroutine)]
        assert first_lines[0] == first_lines[1]
        assert coroutine.__module__ == "pymdc.aio"


def test_classes_are_those_of_the_api_with_other_methods(photos: aio.Bucket) -> None:
    assert {noun.__name__ for noun in NOUNS} | {"Client", "REST"} == {*aio.__all__}
    assert isinstance(photos, api.Bucket)
    assert type(photos.files) is aio.Files
    assert repr(photos) == repr(api.Bucket(photos.bucket_id, photos.key_pair))
    photos.files.bucket_id = "another"
    with pytest.raises(pymdc.BridgeError, match="another"):
        run(photos.files.list())


def test_resources_of_default_client_are_pickled() -> None:
    bucket = pickle.loads(pickle.dumps(aio.Bucket("b", pymdc.ECDSA())))
    assert type(bucket) is aio.Bucket
    assert type(bucket.files) is aio.Files
    user = pickle.loads(pickle.dumps(aio.Users("a@b.com", "pass")))
    assert (type(user), user.password) == (aio.Users, "pass")


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("body", [b'{"error": "no"}', b"<html>"], ids=["refused", "failed"])
def test_await_raises_without_secrets_in_the_traceback(raises: bool, body: bytes) -> None:
    with RawServer(answering(written("400 Bad", body))) as server:
        with pymdc.Client(server.endpoint, raises=raises) as client:
            user = aio.Users("a@b.com", SECRET, client=client)
            with pytest.raises((pymdc.BridgeError, exceptions.HTTPError)) as caught:
                run(user.change_password(SECRET))
    assert SECRET not in locals_in_pymdc(caught.value)


def locals_in_pymdc(error: BaseException | None) -> str:
    found = ""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename.startswith(PACKAGE):
                found += repr(frame.f_locals)
        error = error.__cause__ or error.__context__
    return found


def test_gather_returns_exceptions_as_values_if_asked(client: pymdc.Client) -> None:
    files = aio.Files("b", pymdc.ECDSA(), client=client)

    async def both() -> Any:
        return await asyncio.gather(
            files.list(), files.upload("missing.jpg"), return_exceptions=True
        )

    refused, missing = run(both())
    assert (type(refused), type(missing)) == (pymdc.BridgeError, FileNotFoundError)


def test_wrong_argument_and_callback_raise_type_error(photos: aio.Bucket) -> None:
    with pytest.raises(TypeError, match="expected text or bytes"):
        run(photos.files.delete(5))  # type: ignore[arg-type]  # the check
    with pytest.raises(TypeError, match=r"multiple values for .*'callback'"):
        run(photos.list(print))


def test_hundred_uploads_at_once_arrive(photos: aio.Bucket) -> None:
    contents = [bytearray(f"content {number}", "ascii") for number in range(100)]

    async def upload_all() -> Any:
        files = photos.files
        return await asyncio.gather(*(files.upload(content) for content in contents))

    assert len({entry["hash"] for entry in run(upload_all())}) == 100


def test_loops_in_threads_share_a_client(photos: aio.Bucket) -> None:
    names: list[str] = []

    def work() -> None:
        names.append(run(photos.list())["name"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert names == ["photos"] * 4


@pytest.fixture
def server() -> Iterator[HoldingServer]:
    """Give a server that never answers the first request."""
    with HoldingServer(read_request) as holding:
        holding.released.set()
        yield holding


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE)


def test_cancelled_task_cancels_the_call(server: HoldingServer) -> None:
    async def main() -> None:
        async with aio.Client(server.endpoint) as client:
            user = aio.Users("a@b.com", SECRET, client=client)
            task = asyncio.create_task(user.change_password(SECRET))
            await until(server.held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert SECRET not in locals_in_pymdc(caught.value)
            assert await asyncio.to_thread(server.ended.wait, AT_ONCE)  # the connection is closed

    run(main())


def test_timeout_cancels_the_call(server: HoldingServer) -> None:
    async def main() -> None:
        async with aio.Client(server.endpoint) as client:
            user = aio.Users("a@b.com", SECRET, client=client)
            with pytest.raises(asyncio.TimeoutError) as caught:
                await asyncio.wait_for(user.register(), 0.05)
            assert SECRET not in locals_in_pymdc(caught.value)
            await until(server.ended)

    run(main())


def test_cancelled_block_of_client_cancels_its_calls(server: HoldingServer) -> None:
    async def main() -> None:
        values: list[Any] = []

        async def hold() -> None:
            async with aio.Client(server.endpoint) as client:
                api.Users("a@b.com", client=client).register(values.append)
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await until(server.held)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [type(value) for value in values] == [exceptions.Cancelled]

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no TaskGroup")
def test_failed_task_of_group_cancels_the_others(
    server: HoldingServer, client: pymdc.Client
) -> None:
    async def main() -> None:
        async with aio.Client(server.endpoint) as holding:

            async def fail() -> None:
                await until(server.held)
                await aio.Files("b", pymdc.ECDSA(), client=client).list()

            async with asyncio.TaskGroup() as group:
                group.create_task(aio.Users("a@b.com", client=holding).register())
                group.create_task(fail())

    with pytest.raises(BaseException, match="unhandled errors in a TaskGroup") as caught:
        run(main())
    (error,) = caught.value.exceptions  # type: ignore[attr-defined]  # of an ExceptionGroup
    assert type(error) is pymdc.BridgeError
    assert server.ended.wait(AT_ONCE)


LEFT = """
import asyncio, sys, pymdc

async def main():
    global task
    task = asyncio.create_task(pymdc.aio.Users("a@b.com").register())
    await asyncio.to_thread(input)

asyncio.run(main())
print(task.cancelled(), flush=True)
"""
CLOSED = """
import asyncio, pymdc

loop = asyncio.new_event_loop()
task = loop.create_task(pymdc.aio.Users("a@b.com").register())
loop.run_until_complete(asyncio.sleep(0))
input()
loop.close()
print("closed", flush=True)
"""


def started(script: str, endpoint: str) -> subprocess.Popen[str]:
    pipe, environment = subprocess.PIPE, {**os.environ, "PYMDC_ENDPOINT": endpoint}
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    )


def test_end_of_loop_cancels_the_calls_that_are_left(server: HoldingServer) -> None:
    with started(LEFT, server.endpoint) as process:
        assert server.held.wait(PATIENCE)
        assert process.communicate("\n", timeout=PATIENCE) == ("True\n", "")


def test_answer_for_a_closed_loop_is_dropped_silently() -> None:
    held, released = threading.Event(), threading.Event()

    def answer_late(connection: socket.socket) -> None:
        read_request(connection)
        held.set()
        released.wait(PATIENCE)
        connection.sendall(ANSWER)

    with RawServer(answer_late) as server, started(CLOSED, server.endpoint) as process:
        assert held.wait(PATIENCE)
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        released.set()
        printed, errors = process.communicate(timeout=PATIENCE)
    assert (printed, process.returncode) == ("", 0)
    # asyncio itself may say that a task was pending.
    assert "Traceback" not in errors
    assert "closed" not in errors


def test_progress_reaches_the_loop(photos: aio.Bucket) -> None:
    async def main() -> list[tuple[int, int | None]]:
        loop, seen = asyncio.get_running_loop(), asyncio.Queue[tuple[int, int | None]]()

        def progress(done: int, total: int | None) -> None:
            loop.call_soon_threadsafe(seen.put_nowait, (done, total))

        await photos.files.upload(bytearray(1_000_000), progress=progress)
        await asyncio.sleep(0)
        reports = []
        while not seen.empty():
            reports.append(seen.get_nowait())
        return reports

    assert run(main())[-1] == (1_000_000, 1_000_000)


def test_import_of_pymdc_does_not_import_asyncio() -> None:
    script = "import sys, pymdc; assert 'asyncio' not in sys.modules; print(pymdc.aio.Users)"
    done = python("-c", script)
    assert (done.stdout, done.stderr) == ("<class 'pymdc.aio.Users'>\n", "")
