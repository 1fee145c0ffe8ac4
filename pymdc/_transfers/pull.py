"""Shards pulled side by side: several channels, and one reader, who takes the oldest first."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Iterable

from pymdc._calls.capture import without_frames
from pymdc._crypto.file_hash import Block
from pymdc._transfers.channel import Channel
from pymdc._transfers.download import Pointer
from pymdc.exceptions import ChannelError, NetworkError

# Bytes that are read of a shard while an earlier one is not whole: an interruption costs them.
_AHEAD = 128 * 1024


def side_by_side(
    pointers: Iterable[tuple[int, Pointer]], connect: Callable[[Pointer], Channel], most: int
) -> Generator[tuple[int, Block], None, None]:
    """Give the blocks of shards, each with its shard's number; an empty one ends a shard.

    At most *most* channels are open. One that was opened later is read only while the earlier ones
    have nothing, and then but its beginning, so that an interruption costs little more than a
    shard. When one fails no more are opened, and it is raised when the others have ended.
    """
    left, lanes = iter(pointers), _Lanes()
    failure: ChannelError | NetworkError | None = None
    try:
        while True:
            try:
                while failure is None and len(lanes) < most and (pair := next(left, None)):
                    most = most if lanes.add(pair[0], connect(pair[1])) else 1
            except NetworkError as error:
                failure = without_frames(error)
            if not lanes:
                break
            number, channel = lanes.next()
            try:
                blocks = channel.read(waits=len(lanes) == 1)
            except (ChannelError, NetworkError) as error:
                failure = failure or without_frames(error)
                lanes.end(number)
                continue
            for block in blocks:
                if block:
                    yield number, block
            if channel.ended:
                lanes.end(number)
                yield number, b""
            else:
                lanes.pause(number)
        if failure is not None:
            raise failure
    finally:
        lanes.close()
        failure = None  # which holds this frame


class _Lanes:
    """Open channels by the numbers of their shards, the oldest first."""

    def __init__(self) -> None:
        self._channels: dict[int, Channel] = {}
        self._ready = selectors.DefaultSelector()  # of those that may be read

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, number: int, channel: Channel) -> bool:
        """Take in a channel; say whether others may be read while it has nothing."""
        self._channels[number] = channel
        self._go_on(number)
        return channel.tells

    def next(self) -> tuple[int, Channel]:
        """Return the oldest channel that has something to read, waiting for it."""
        number = self._oldest()
        if len(self._channels) > 1:
            found = [key.data for key, _ in self._ready.select(self._channels[number].wait)]
            if not found:
                raise self._channels[number].silent()
            number = min(found)
        return number, self._channels[number]

    def pause(self, number: int) -> None:
        """Read no more of a channel that is ahead, until it is the oldest."""
        channel = self._channels[number]
        if channel.came >= _AHEAD and number != self._oldest():
            self._ready.unregister(channel.sock)

    def end(self, number: int) -> None:
        """Close a channel."""
        channel = self._channels.pop(number)
        if channel.tells:
            self._ready.unregister(channel.sock)
        channel.close()
        if self._channels:
            self._go_on(self._oldest())

    def close(self) -> None:
        """Close every channel."""
        self._ready.close()
        for channel in self._channels.values():
            channel.close()

    def _oldest(self) -> int:
        return next(iter(self._channels))

    def _go_on(self, number: int) -> None:
        channel = self._channels[number]
        if channel.tells and channel.sock not in self._ready.get_map():
            self._ready.register(channel.sock, selectors.EVENT_READ, number)
