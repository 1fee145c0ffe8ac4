"""Shards pulled side by side: several channels, and one reader, who takes the oldest first."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Iterable

from pymdc._channel import Channel
from pymdc._hashes import Block
from pymdc._shards import Pointer


def side_by_side(
    pointers: Iterable[tuple[int, Pointer]], connect: Callable[[Pointer], Channel], most: int
) -> Generator[tuple[int, Block], None, None]:
    """Give the blocks of shards, each with its shard's number; an empty one ends a shard.

    At most *most* channels are open. One that was opened later is read only while the earlier ones
    have nothing, so that an interruption costs the beginning of few shards.
    """
    left, open_ones = iter(pointers), dict[int, Channel]()  # oldest first
    with selectors.DefaultSelector() as ready:
        try:
            while True:
                while len(open_ones) < most and (pair := next(left, None)):
                    number, pointer = pair
                    channel = open_ones[number] = connect(pointer)
                    if channel.tells:
                        ready.register(channel.sock, selectors.EVENT_READ, number)
                    else:
                        most = 1
                if not open_ones:
                    return
                number, channel = _next(open_ones, ready)
                for block in channel.read():
                    if block:
                        yield number, block
                if channel.ended:
                    if channel.tells:
                        ready.unregister(channel.sock)
                    open_ones.pop(number).close()
                    yield number, b""
        finally:
            for channel in open_ones.values():
                channel.close()


def _next(open_ones: dict[int, Channel], ready: selectors.BaseSelector) -> tuple[int, Channel]:
    """Return the oldest channel that has something to read, waiting for it."""
    oldest = next(iter(open_ones))
    if len(open_ones) > 1:
        found = [key.data for key, _ in ready.select(open_ones[oldest].wait)]
        if not found:
            raise open_ones[oldest].silent()
        oldest = min(found)
    return oldest, open_ones[oldest]
