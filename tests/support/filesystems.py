"""Unusual file systems, imitated for the threads of one function."""

from __future__ import annotations

import concurrent.futures
import ctypes
import encodings.idna
import glob
import os
import platform
import struct
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest

Value = TypeVar("Value")

OTHER_USER = 12345

# pymdc imports these where it needs them, and the other user may not read Python's modules.
_IMPORTED = (encodings.idna, glob, urllib.request)

_FLOCK = {"x86_64": 73, "aarch64": 32}
_FTRUNCATE = {"x86_64": 77, "aarch64": 46}
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000


def in_thread(function: Callable[[], Value]) -> Value:
    """Call *function* on a new thread and return its value."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def without_flock(error: int, function: Callable[[], Value]) -> Value:
    """Call *function* where flock() fails with *error*, also on the threads that it starts."""

    def filtered() -> Value:
        refuse_flock(error)
        return function()

    return in_thread(filtered)


def without_ftruncate(error: int, function: Callable[[], Value]) -> Value:
    """Call *function* where ftruncate() fails with *error*, also on the threads that it starts."""

    def filtered() -> Value:
        _refuse(_FTRUNCATE, error)
        return function()

    return in_thread(filtered)


def refuse_flock(error: int) -> None:
    """Make flock() fail on this thread and on the threads that it starts."""
    _refuse(_FLOCK, error)


def _refuse(numbers: Mapping[str, int], error: int) -> None:
    """Make a system call fail; *numbers* has its number on each architecture."""
    if platform.system() != "Linux" or platform.machine() not in numbers:
        pytest.skip("the numbers of system calls are known for Linux on x86_64 and aarch64")
    steps = [
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 0, 1, numbers[platform.machine()]),
        (_RETURN, 0, 0, _ERROR | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    prctl = ctypes.CDLL(None).prctl
    if prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(_SET_SECCOMP, _FILTER, program):
        pytest.skip("this kernel filters no system calls")


def as_other_user(function: Callable[[], Value]) -> Value:
    """Call *function* where new files belong to `OTHER_USER`, as on some mounts."""
    if os.geteuid():
        pytest.skip("only root can create files of another user")

    def switched() -> Value:
        ctypes.CDLL(None).setfsuid(OTHER_USER)
        return function()

    return in_thread(switched)


@contextmanager
def world_writable_folder() -> Iterator[Path]:
    """Yield a folder that every user may write to."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
