"""The client of the Metadisk API: each method blocks, or returns at once if given a callback.

The environment variable PYMDC_ENDPOINT names the bridge, unless a class is given a ``client``::

    >>> import pymdc
    >>> user = pymdc.api.Users("you@example.com", "a good password")
    >>> user.register()                    # blocks, and returns the bridge's answer
    >>> user.activate("the token from the mail")
    >>> keys = pymdc.api.Keys(user)
    >>> keys.create()
    >>> key_pair = keys.key_pairs[0]
    >>> buckets = pymdc.api.Buckets(key_pair)
    >>> bucket_id = buckets.create("photos", 10, 30, [])["id"]
    >>> bucket = pymdc.api.Bucket(bucket_id, key_pair)
    >>> bucket.files.upload("photo.jpg")
    >>> bucket.files.list(print)           # returns at once; print gets the answer on a worker

If a call fails, it returns an exception or the bridge's refusal. `exceptions` shows the tree of
these exceptions; `unwrap` raises them, and the blocking calls of ``Client(raises=True)`` do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# First: on Python 3.11, urllib3 compiles its patterns slowly if imports are deeply nested.
from pymdc.client import Client  # isort: skip

from pymdc import api, keypair, rest, unirest
from pymdc._calls.call import Call
from pymdc._crypto.file_hash import hash_of_file as file_hash
from pymdc._progress_bar import progress_bar
from pymdc.exceptions import BridgeError, Cancelled, PymdcError, unwrap
from pymdc.keypair import ECDSA

__version__ = "0.1.0"
__all__ = [
    "ECDSA",
    "BridgeError",
    "Call",
    "Cancelled",
    "Client",
    "PymdcError",
    "aio",
    "api",
    "file_hash",
    "keypair",
    "progress_bar",
    "rest",
    "unirest",
    "unwrap",
]


if TYPE_CHECKING:
    from pymdc import aio


def __getattr__(name: str) -> Any:
    if name == "aio":  # it imports asyncio, which takes longer than all the rest
        return importlib.import_module("pymdc.aio")
    raise AttributeError(f"module 'pymdc' has no attribute {name!r}")


def __dir__() -> list[str]:
    names = {name for name in globals() if not name.startswith("_") or name.startswith("__")}
    return sorted(names | {"aio"})
