"""Uploads from an asyncio program with pymdc.aio: the event loop stays free.

    .venv/bin/python examples/asyncio_app.py

It starts a bridge of its own, and exits with 0 only if every download equals its upload.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pymdc
from pymdc import aio
from pymdc.bridge import Bridge

FILES = 4
SIZE = 2_000_000
TICK = 0.01  # seconds


async def tick(late: list[float]) -> None:
    """Record, again and again, how late the event loop resumes this coroutine."""
    while True:
        due = time.monotonic() + TICK
        await asyncio.sleep(TICK)
        late.append(time.monotonic() - due)


async def there_and_back(files: aio.Files, path: Path) -> bool:
    """Upload the file at *path*, download it, and say whether both are equal."""
    entry = await files.upload(path)
    print(f"{path.name} went up: {entry['size']} bytes", flush=True)
    back = path.with_suffix(".back")
    await files.download(entry["hash"], to=back)
    print(f"{path.name} came back", flush=True)
    return back.read_bytes() == path.read_bytes()


async def lesson(bridge: Bridge, paths: list[Path]) -> bool:
    async with aio.Client(bridge.endpoint) as client:
        return await upload_and_download(bridge, client, paths)


async def upload_and_download(bridge: Bridge, client: aio.Client, paths: list[Path]) -> bool:
    user = aio.Users("you@example.com", "a good password", client=client)
    await user.register()
    await user.activate(bridge.activation_key(user.username))  # usually the token comes by mail
    keys = aio.Keys(user)
    await keys.create()
    print("The account is there.", flush=True)

    made = await aio.Buckets(keys.key_pairs[0], client=client).create("photos", 10, 30, [])
    files = aio.Bucket(made["id"], keys.key_pairs[0], client=client).files
    print("The bucket is there.", flush=True)

    late: list[float] = []
    ticker = asyncio.create_task(tick(late))
    same = await asyncio.gather(*(there_and_back(files, path) for path in paths))
    ticker.cancel()
    print(f"Meanwhile the loop ticked {len(late)} times, {1000 * max(late):.0f} ms late at most.")
    return all(same)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"photo{number}.jpg") for number in range(FILES)]
        for path in paths:
            path.write_bytes(random.randbytes(SIZE))
        with Bridge() as bridge:
            try:
                same = asyncio.run(lesson(bridge, paths))
            except (pymdc.PymdcError, OSError) as error:
                sys.exit(f"The lesson ends here: {error}")
        if not same:
            sys.exit("What came back is not what went up.")
        total = sum(os.path.getsize(path) for path in paths)
        print(f"Success: {FILES} files, {total} bytes, went up and came back, byte for byte.")


if __name__ == "__main__":
    main()
