"""Which store a URL means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pymdc.bridge.settings import WrongSetting
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.objects import ObjectStore

_EXPECTED = "s3://BUCKET[/PREFIX], gs://..., az://... or file:///PATH, without a password"
_OTHERS = ("s3", "gs", "az")
_PREFIX = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")


def check_url(url: str) -> None:
    """Raise `WrongSetting` unless *url* is that of a store."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if scheme == "file":
        right = place in ("", "localhost") and bool(path.strip("/"))
    else:
        right = scheme in _OTHERS and bool(place and _PREFIX.fullmatch(slash + path))
    if not right or re.search(r"[@?#\s]", url):
        # The value may hold a password.
        raise WrongSetting("store", "no URL of a store", _EXPECTED)


def open_store(url: str | None, folder: Path, *, fsync: bool) -> ObjectStore:
    """Open the store at *url*, by default the one in *folder*.

    *fsync* is for a folder. Raises OSError or `UnavailableError` if nothing can be stored there.
    """
    if url is None:
        return FolderStore(folder, fsync=fsync)
    check_url(url)
    if url.startswith("file:"):
        return FolderStore(Path(url2pathname(urlsplit(url).path)), fsync=fsync)
    from pymdc.bridge.storage.s3_store import S3Store  # takes 50 ms, and needs obstore

    store = S3Store(url, os.environ)
    store.prepare()
    return store
