"""The bridge: the Metadisk API over HTTP, and the channels that its shards go out on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymdc.bridge.server import Bridge

__all__ = ["Bridge"]


def __getattr__(name: str) -> object:
    # Late, so that `python -m pymdc.bridge` can say in one line which package is missing.
    if name != "Bridge":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pymdc.bridge.server import Bridge

    return Bridge
