"""Types that a caller's code gets from pymdc; mypy checks this file, and nothing runs it."""

from __future__ import annotations

import asyncio
from typing import Any, assert_type

import pymdc


def show(answer: object) -> None:
    """Accept an answer."""


async def coroutine_caller(user: pymdc.aio.Users, bucket: pymdc.aio.Bucket) -> None:
    assert_type(await user.register(invitation="code"), Any)
    files: pymdc.aio.Files = bucket.files
    await asyncio.gather(files.upload("photo.jpg"), pymdc.aio.REST("GET", "/keys", auth=user))
    async with pymdc.aio.Client() as client:
        await pymdc.aio.Keys(user, client=client).create()


def caller(user: pymdc.api.Users, key_pair: pymdc.ECDSA, bucket: pymdc.api.Bucket) -> None:
    assert_type(user.register(), Any)
    call: pymdc.Call = user.register(show)
    assert_type(call.result(timeout=1), Any)
    user.register(show, invitation="code")
    user.activate("token", callback=show)
    pymdc.api.Keys(user).create(callback=show)
    bucket.files.upload("photo.jpg", callback=show)
    bucket.files.download("hash", None, show, to="photo.jpg")
    assert_type(pymdc.rest.REST("GET", "/keys", auth=user), Any)
    pymdc.rest.REST("GET", "/keys", auth=user, callback=show)
    assert_type(key_pair.get_public_key(), str)
    assert_type(key_pair.get_public_key("bin"), bytes)
