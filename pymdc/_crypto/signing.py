"""The contract: the string that a key pair signs; client and bridge share this function."""

from __future__ import annotations


def contract(method: str, path: str, payload: bytes) -> bytes:
    r"""Return ``METHOD\nPATH\nPAYLOAD``, the bytes that the signature of a request covers.

    *path* is the path as sent, percent-encoded, without host and query.
    *payload* is the body as sent or, for GET, HEAD, DELETE and OPTIONS, the query, possibly empty.
    """
    return b"\n".join((method.encode("ascii"), path.encode("ascii"), payload))
