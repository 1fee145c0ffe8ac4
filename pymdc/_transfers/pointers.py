"""Pointers to shards, as the bridge sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymdc._transfers.channel import Pointer, parse_channel_url
from pymdc.exceptions import IntegrityError

_LARGEST = 2**40  # bytes of a shard; a larger size counts as unknown


Pointers = Sequence[Pointer]


def check_pointers(answer: Any, operation: str) -> Pointers:
    """Return *answer* if it is a list of pointers; else raise an error that names *operation*."""
    keys = ("hash", "token", "channel")
    if not isinstance(answer, list) or not all(
        isinstance(pointer, dict) and all(isinstance(pointer.get(key), str) for key in keys)
        for pointer in answer
    ):
        raise IntegrityError(
            f"{operation}: the answer is no list of pointers with hash, token and channel;"
            " is something else listening at the endpoint?"
        )
    for pointer in answer:  # before the download, because new pointers do not correct a wrong URL
        parse_channel_url(pointer["channel"])
    return answer


def sizes_of(pointers: Pointers) -> list[int] | None:
    """Return the sizes of the shards, or None unless every pointer has a possible size."""
    sizes = [pointer.get("size") for pointer in pointers]
    known = [size for size in sizes if type(size) is int and 0 <= size <= _LARGEST]
    return known if len(known) == len(sizes) else None
