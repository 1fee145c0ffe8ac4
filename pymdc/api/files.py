"""The files of a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from pymdc._arguments import Callback, Text, check_callback, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._http.auth import FetchedToken, Identity, Token, check_identity, check_token, identify
from pymdc._http.request import Request, build_request, resource
from pymdc._transfers.download import download_file
from pymdc._transfers.progress import ProgressCallback, check_progress
from pymdc._transfers.source import Given, Source
from pymdc._transfers.target import Target, check_target
from pymdc._transfers.upload import FileBody, body_of
from pymdc.api._resource import Resource
from pymdc.client import Answer, Client
from pymdc.exceptions import IntegrityError, refused


class Files(Resource):
    """The files of the bucket *bucket_id*; *key_pair* is as in `Buckets`.

    Who has a token needs no key: *key_pair* may be None.
    Attributes: ``bucket_id``, ``key_pair``.
    """

    def __init__(
        self, bucket_id: Text, key_pair: Identity, *, client: Client | None = None
    ) -> None:
        super().__init__(client)
        self.bucket_id = text(bucket_id, "the bucket's id")
        self.key_pair = check_identity(key_pair)

    def list(self, callback: Callback | None = None) -> Answer:
        """Return the entries: ``[{bucket, mimetype, filename, size, hash}]``. The key signs.

        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "GET", *self._path)

    def token(self, operation: Text, callback: Callback | None = None) -> Answer:
        """Return a token for one *operation*, "PUSH" or "PULL", within 5 minutes. The key signs.

        With *callback*, return a `Call` at once.
        """
        params = {"operation": text(operation, "the operation")}
        return self._call(callback, self.key_pair, "POST", *self._path[:2], "tokens", params=params)

    def upload(
        self,
        path: Given,
        token: Text | None = None,
        callback: Callback | None = None,
        *,
        progress: ProgressCallback | None = None,
        verify: bool = True,
        name: Text | None = None,
    ) -> Answer:
        """Store a file: that at *path*, an open binary one from its position on, or content.

        A path, text or bytes, is opened at the call; content is a ``bytearray`` or ``memoryview``.
        The file is stored under its base name, or under *name*; without either, under its hash.
        The *token*, a PUSH token, says who may; without one the key signs for one.
        *progress* is called with the bytes sent and their total, at most 20 times a second, on
        the worker; what it raises ends the transfer.
        The value is the entry; an `IntegrityError` when the bridge names it by another hash, which
        *verify* False leaves unsaid, or when the file grew or shrank meanwhile.
        With *callback*, return a `Call` at once.
        """
        reported, granted = check_progress(progress), _given(token)
        callback, client = check_callback(callback), self._client
        put, fetch, source = self._path, self._token(client, "PUSH"), Source(path, name)

        def push(scope: CancelScope) -> Answer:
            aside = client.background_task() if verify else None
            with body_of(source, scope, reported, aside) as body:
                headers = {**body.headers, "x-filesize": str(body.size)}
                request = Request("PUT", resource(*put), headers=headers, stream=body)
                answer = client.send(request, granted or FetchedToken(fetch, scope), scope)
                if refused(answer):
                    return answer
                entry = _stored(answer, body, scope.operation)
                body.stored = True
            reported.finish(body.size)
            return entry

        return client.run(push, callback, transfer=True)

    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        callback: Callback | None = None,
        *,
        to: Target | BinaryIO | None = None,
        progress: ProgressCallback | None = None,
    ) -> Answer:
        """Return the pointers to the shards, ``[{hash, size, token, operation, channel}]``.

        With *to*, a path or an open binary file, fetch and verify the shards and write the file;
        the value is ``{bucket, hash, size, path}``, and a path holds the whole file or nothing new.
        What an interrupted download to a path has brought is used by the next one of that file.
        The *token*, a PULL token, says who may; without one the key signs for one.
        *progress* is called with the bytes that are verified and written and their total (None
        where the bridge tells no sizes), at most 20 times a second, on the worker; what it raises
        ends the transfer.
        With *callback*, return a `Call` at once.
        """
        name, path = text(file_hash, "the file's hash"), self._path
        reported, granted = check_progress(progress), _given(token)
        client = self._client
        fetch = self._token(client, "PULL")
        request = build_request("GET", resource(*path, name))

        def ask(scope: CancelScope) -> Answer:
            return client.send(request, granted or FetchedToken(fetch, scope), scope)

        if to is None:
            return client.run(ask, callback, transfer=True)
        target = check_target(to)

        def pull(scope: CancelScope) -> Answer:
            value = download_file(client, name, target, reported, ask, granted is None, scope)
            return value if refused(value) else {"bucket": path[1], "hash": name, **value}

        return client.run(pull, callback, transfer=True)

    def delete(self, file_hash: Text, callback: Callback | None = None) -> Answer:
        """Remove the file; the value is ''. The key signs.

        With *callback*, return a `Call` at once.
        """
        name = text(file_hash, "the file's hash")
        return self._call(callback, self.key_pair, "DELETE", *self._path, name)

    @property
    def _path(self) -> tuple[str, ...]:
        return ("buckets", text(self.bucket_id, "the bucket's id"), "files")

    def _token(self, client: Client, operation: str) -> Callable[[CancelScope], Answer]:
        """Return what fetches a token for *operation* by *client*."""
        request = build_request(
            "POST", resource(*self._path[:2], "tokens"), {"operation": operation}
        )
        return partial(client.send, request, identify(self.key_pair))

    def __repr__(self) -> str:
        return f"<Files of bucket {self.bucket_id!r} of {self.key_pair}>"


def _given(token: Text | None) -> Token | None:
    return None if token is None else Token(check_token(token))


def _stored(entry: Answer, body: FileBody, tried: str) -> Answer:
    """Return *entry*, in which the bridge names the file; `IntegrityError` for another one."""
    if body.hash is None:
        return entry
    found = body.hash.hexdigest()
    stored = entry.get("hash") if isinstance(entry, dict) else None
    if stored != found:
        if not (isinstance(stored, str) and re.fullmatch("[0-9a-f]{40}", stored)):
            stored = "something without a hash"  # in whose place may be what it was sent
        raise IntegrityError(f"{tried}: the bridge stored {stored}; what was sent is {found}")
    return entry
