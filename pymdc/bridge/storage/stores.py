"""Which store a URL means."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.objects import ObjectStore


def open_store(url: str | None, folder: Path, *, fsync: bool) -> ObjectStore:
    """Open the store at *url*, by default the one in *folder*.

    *fsync* is for a folder. Raises OSError or `UnavailableError` if nothing can be stored there.
    """
    if url is None:
        return FolderStore(folder, fsync=fsync)
    if url.startswith("file:"):
        return FolderStore(Path(url2pathname(urlsplit(url).path)), fsync=fsync)
    from pymdc.bridge.storage.s3_store import S3Store  # takes 50 ms, and needs obstore

    store = S3Store(url, os.environ)
    store.prepare()
    return store
