"""The contract: the string that a key pair signs, read the same by client and bridge."""

from __future__ import annotations


def contract(method: str, path: str, payload: bytes) -> bytes:
    r"""Return ``METHOD\nPATH\nPAYLOAD``, the text under a request's signature.

    *path* is the path as sent, escapes kept, without host or query.
    *payload* is the body as sent; for GET, DELETE and OPTIONS the query string as sent,
    empty when there is none.
    """
    return b"\n".join((method.encode("ascii"), path.encode("ascii"), payload))
