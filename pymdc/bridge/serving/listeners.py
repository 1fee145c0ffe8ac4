"""The last moments of a port."""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from contextlib import suppress

# Of Linux, in asm-generic/socket.h and linux/bpf_common.h
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _SKIP_UNLESS_ANY_BIT, _RETURN = 0x30, 0x45, 0x06
_FLAGS, _SYN = 13, 0x02  # where a segment of TCP has its flags, and the one that asks to connect
_INSTRUCTIONS = (  # what to do, how many to skip if true and if false, and a number
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_SKIP_UNLESS_ANY_BIT, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFF_FFFF),  # bytes to keep
)


def ignore_new_connections(listener: socket.socket) -> None:
    """Let the system drop what asks for a connection to *listener*; only Linux can.

    The client's system asks again after a second, and is refused if the port is closed by then.
    Without this, the system accepts connections until the very close, and resets them then,
    although their requests may have been sent already.
    """
    if sys.platform == "linux":
        code = array("B", b"".join(struct.pack("HBBI", *one) for one in _INSTRUCTIONS))
        program = struct.pack("HP", len(_INSTRUCTIONS), code.buffer_info()[0])
        with suppress(OSError):  # a system that only looks like Linux
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
