"""The bridge: a server of the Metadisk API, over HTTP, and of shards, over WebSockets.

This package knows nothing of the client, and shares only `pymdc._crypto` with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymdc.bridge.errors import missing

if TYPE_CHECKING:
    from pymdc.bridge.bridge import Bridge

__all__ = ["Bridge"]


def __getattr__(name: str) -> object:
    # Imported at the first use, so that a missing package is reported in one line.
    if name != "Bridge":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pymdc.bridge.bridge import Bridge
    except ImportError as error:
        raise ImportError(missing(error), name=error.name) from error
    return Bridge
