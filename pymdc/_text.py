"""Texts, sizes and numbers as people read them."""

from __future__ import annotations

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def printable(text: str) -> str:
    """Return *text* with escapes for what would begin a line, steer a terminal, or not be seen."""
    if text.isprintable():
        return text
    return "".join(part if part.isprintable() else repr(part)[1:-1] for part in text)


def size_text(size: float) -> str:
    """Return a number of bytes with its unit: ``12.4 MB`` is 12,400,000 bytes."""
    for unit in _UNITS:
        if round(size, 1) < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def quota_text(gigabytes: float | None, none: str = "no limit") -> str:
    """Return a quota in GB (10^9 bytes), or *none*."""
    return none if gigabytes is None else f"{gigabytes:,.12g} GB"


def count_text(number: int, noun: str = "file") -> str:
    """Return a number of things: ``1 file`` or ``2 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
