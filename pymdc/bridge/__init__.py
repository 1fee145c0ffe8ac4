"""The bridge: the Metadisk API over HTTP, and the channels that its shards go out on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymdc.bridge.bridge import Bridge

__all__ = ["Bridge"]


def __getattr__(name: str) -> object:
    # Late, so that it can be said in one line which package is missing.
    if name != "Bridge":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pymdc.bridge.bridge import Bridge
    except ImportError as error:
        # Not by the distribution's name, which on the index may be somebody else's.
        install = f"{sys.executable} -m pip install '.[bridge]'"
        message = f"{error.name} is missing: {install} in a clone of the project"
        raise ImportError(message, name=error.name) from error
    return Bridge
