"""What a type checker knows of a caller's code; mypy reads this file, nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

import pymdc


def show(answer: object) -> None:
    """Take an answer."""


def caller(user: pymdc.api.Users, key_pair: pymdc.ECDSA, bucket: pymdc.api.Bucket) -> None:
    assert_type(user.register(), Any)
    assert_type(user.register(show), pymdc.Call)
    assert_type(user.activate("token", callback=show), pymdc.Call)
    assert_type(pymdc.api.Keys(user).create(callback=show), pymdc.Call)
    assert_type(bucket.files.upload("photo.jpg", callback=show), pymdc.Call)
    assert_type(bucket.files.download("hash", None, show, to="photo.jpg"), pymdc.Call)
    assert_type(pymdc.rest.REST("GET", "/keys", auth=user), Any)
    assert_type(pymdc.rest.REST("GET", "/keys", auth=user, callback=show), pymdc.Call)
    assert_type(key_pair.get_public_key(), str)
    assert_type(key_pair.get_public_key("bin"), bytes)
    assert_type(user.register(show).result(timeout=1), Any)
