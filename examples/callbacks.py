"""The lesson of tour.py as a chain of callbacks, whose main thread ends at once.

    .venv/bin/python examples/callbacks.py [FILE]

It exits with 0 only if the downloaded file equals the uploaded one.
"""

import contextlib
import filecmp
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pymdc
from pymdc.bridge import Bridge

opened = contextlib.ExitStack()  # closed by the last callback
bridge = opened.enter_context(Bridge())
folder = opened.enter_context(tempfile.TemporaryDirectory())
client = pymdc.Client(bridge.endpoint)
user = pymdc.api.Users("you@example.com", "a good password", client=client)
keys = pymdc.api.Keys(user)
path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder, "photo.jpg")
back = os.path.join(folder, "back-" + os.path.basename(path))


def step(name: str, then: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return a callback that prints the answer to *name* and continues with *then*."""

    def callback(answer: Any) -> None:
        alive = "still runs" if threading.main_thread().is_alive() else "has ended"
        print(f"{name} (the main thread {alive})\n    {answer!r}", flush=True)
        if isinstance(answer, Exception) or "error" in answer:
            finish(f"The chain ends here: {name} was answered with an error. ({answer})")
        then(answer)

    return callback


def registered(answer: Any) -> None:
    token = bridge.activation_key(user.username)
    user.activate(token, step("user.activate", activated))


def activated(answer: Any) -> None:
    keys.create(callback=step("keys.create", key_created))


def key_created(answer: Any) -> None:
    buckets = pymdc.api.Buckets(keys.key_pairs[0], client=client)
    buckets.create("photos", 10, 30, [], step("buckets.create", bucket_created))


def bucket_created(answer: Any) -> None:
    files = pymdc.api.Bucket(answer["id"], keys.key_pairs[0], client=client).files

    def uploaded(entry: Any) -> None:
        files.download(entry["hash"], to=back, callback=step("files.download", downloaded))

    files.upload(path, callback=step("files.upload", uploaded))


def downloaded(answer: Any) -> None:
    if not filecmp.cmp(path, back, shallow=False):
        finish("What came back is not what went up.")
    print(f"Success: {answer['size']} bytes went up and came back, byte for byte.", flush=True)
    finish()


def finish(failure: str = "") -> None:
    """Stop the bridge, so that the process can end; after a *failure*, exit with status 1."""
    opened.close()
    if failure:
        print(failure, file=sys.stderr, flush=True)
        os._exit(1)  # the main thread, which would set the status, may have ended


if __name__ == "__main__":
    if len(sys.argv) == 1:
        with open(path, "wb") as file:
            file.write(random.randbytes(20_000_000))
    user.register(step("user.register", registered))
    print("The main thread ends here.", flush=True)
