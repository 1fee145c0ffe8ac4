"""Base58Check, the text form of a WIF private key."""

from __future__ import annotations

from hashlib import sha256

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _checksum(payload: bytes) -> bytes:
    return sha256(sha256(payload).digest()).digest()[:4]


def encode(payload: bytes) -> str:
    """Return *payload* and its checksum as Base58 text."""
    data = payload + _checksum(payload)
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + digits


def decode(text: str) -> bytes:
    """Return the payload of Base58Check *text*; ValueError for a bad digit or checksum."""
    number = 0
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    payload, checksum = data[:-4], data[-4:]
    if _checksum(payload) != checksum:
        raise ValueError("the checksum does not fit")
    return payload
