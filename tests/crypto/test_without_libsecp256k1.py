"""Keys where libsecp256k1 is not installed: python-ecdsa does the same work."""

from __future__ import annotations

import pytest
from processes import python

from pymdc import ECDSA

PROGRAM = """
import sys
sys.modules["btclib_secp256k1"] = None
from pymdc import ECDSA

pair = ECDSA(private_key=sys.argv[1])
print(pair.get_public_key())
print(pair.sign("Grüße"))
print(pair.valid_signature(sys.argv[2], "Grüße"), pair.valid_signature(sys.argv[2], "x"))
print(ECDSA.validate_public_key("02" + "ff" * 32))
print(ECDSA().valid_signature(sys.argv[2], "Grüße"))
"""


@pytest.mark.parametrize("number", [1, 0x11, 2**255])
def test_keys_are_the_same_without_libsecp256k1(number: int) -> None:
    pair = ECDSA(private_key=number.to_bytes(32, "big"))
    signature = pair.sign("Grüße")
    ended = python("-X", "utf8", "-c", PROGRAM, pair.get_private_key(), signature)
    assert (ended.stderr, ended.returncode) == ("", 0)
    said = [pair.get_public_key(), signature, "True False", "False", "False"]
    assert ended.stdout.splitlines() == said
