"""The last moments of a port."""

from __future__ import annotations

import ctypes
import socket
import sys
from contextlib import suppress

# Of Linux, in asm-generic/socket.h and linux/bpf_common.h
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _SKIP_UNLESS_ANY_BIT, _RETURN = 0x30, 0x45, 0x06
_FLAGS, _SYN = 13, 0x02  # where a segment of TCP has its flags, and the one that asks to connect
_WHOLE = 0xFFFF_FFFF


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def ignore_new_connections(listener: socket.socket) -> None:
    """Let the system drop what asks for a connection to *listener*; only Linux can.

    A client asks again after a second, and is refused if the port is closed by then. Without
    this, the system accepts connections until the very close, and resets them then, although
    their requests may have been sent already.
    """
    if sys.platform == "linux":
        instructions = (_Instruction * 4)(
            _Instruction(_LOAD_BYTE, 0, 0, _FLAGS),
            _Instruction(_SKIP_UNLESS_ANY_BIT, 0, 1, _SYN),
            _Instruction(_RETURN, 0, 0, 0),
            _Instruction(_RETURN, 0, 0, _WHOLE),
        )
        program = _Program(len(instructions), instructions)
        with suppress(OSError):  # a system that only looks like Linux
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
