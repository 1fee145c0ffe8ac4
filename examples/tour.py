"""The whole lesson in blocking calls: an account, a key, a bucket, an upload and a download.

    .venv/bin/python examples/tour.py [FILE]

It starts a bridge of its own, and exits with 0 only if the downloaded file equals the uploaded one.
"""

import filecmp
import os
import random
import sys
import tempfile
from pprint import pformat
from typing import Any

import pymdc
from pymdc.bridge import Bridge


def show(call: str, answer: Any) -> Any:
    """Print a call and its answer; end the tour if the answer is an error."""
    print(f">>> {call}\n{pformat(answer, sort_dicts=False)}\n", flush=True)
    if isinstance(answer, Exception) or (isinstance(answer, dict) and "error" in answer):
        sys.exit(f"The tour ends here: {call} was answered with an error. ({answer})")
    return answer


def tour(path: str, back: str, bridge: Bridge, client: pymdc.Client) -> None:
    user = pymdc.api.Users("you@example.com", "a good password", client=client)
    show("user.register()", user.register())
    token = bridge.activation_key("you@example.com")  # usually the token comes by mail
    show("user.activate(token)", user.activate(token))

    keys = pymdc.api.Keys(user)
    show("keys.create()", keys.create())
    key_pair = keys.key_pairs[0]

    buckets = pymdc.api.Buckets(key_pair, client=client)
    made = show('buckets.create("photos", 10, 30, [])', buckets.create("photos", 10, 30, []))

    bucket = pymdc.api.Bucket(made["id"], key_pair, client=client)
    entry = show(f"bucket.files.upload({path!r})", bucket.files.upload(path))
    show("bucket.files.list()", bucket.files.list())
    show(
        f"bucket.files.download({entry['hash']!r}, to={back!r})",
        bucket.files.download(entry["hash"], to=back),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            path = sys.argv[1]
        else:
            path = os.path.join(folder, "photo.jpg")
            with open(path, "wb") as file:
                file.write(random.randbytes(20_000_000))
        back = os.path.join(folder, "back-" + os.path.basename(path))
        with Bridge() as bridge, pymdc.Client(bridge.endpoint) as client:
            tour(path, back, bridge, client)
        if not filecmp.cmp(path, back, shallow=False):
            sys.exit("What came back is not what went up.")
        print(f"Success: {os.path.getsize(back)} bytes went up and came back, byte for byte.")


if __name__ == "__main__":
    main()
