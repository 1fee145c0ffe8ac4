"""The files of a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from pymdc._arguments import Callback, Text, check_callback, check_count, text
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.raising import may_raise
from pymdc._http.auth import FetchedToken, Identity, Token, check_identity, check_token, identify
from pymdc._http.request import Request, build_request, resource
from pymdc._transfers.download import download_file
from pymdc._transfers.progress import ProgressCallback, check_progress
from pymdc._transfers.source import Given, Source
from pymdc._transfers.target import Target, check_target, name_of
from pymdc._transfers.upload import FileBody, body_of
from pymdc.api._resource import Resource
from pymdc.client import Answer, Client
from pymdc.exceptions import IntegrityError, refused


class Files(Resource):
    """The files of the bucket *bucket_id*; *key_pair* is as in `Buckets`.

    For an upload or a download with a token, *key_pair* may be None.
    Attributes: ``bucket_id``, ``key_pair``.
    """

    def __init__(
        self, bucket_id: Text, key_pair: Identity, *, client: Client | None = None
    ) -> None:
        super().__init__(client)
        self.bucket_id = text(bucket_id, "the bucket's id")
        self.key_pair = check_identity(key_pair)

    @may_raise
    def list(
        self,
        callback: Callback | None = None,
        *,
        limit: int | None = None,
        after: Text | None = None,
        name: Text | None = None,
    ) -> Answer:
        """Return the entries: ``[{bucket, mimetype, filename, size, hash, created}]``.

        *created* is when the file was uploaded last, in UTC as ISO 8601 says; None if that is not
        known. The bridge of 2016 does not tell it.
        At most *limit* of them, those that follow the file with the hash *after*, or those with
        the file name *name*; the bridge of 2016 returns all of them nevertheless.
        Signed with the key pair.
        With *callback*, return a `Call` at once.
        """
        params: dict[str, Any] = {} if limit is None else {"limit": check_count(limit, "the limit")}
        for key, value, what in ("after", after, "the file's hash"), ("name", name, "the name"):
            if value is not None:
                params[key] = text(value, what)
        return self._call(callback, self.key_pair, "GET", *self._path, params=params)

    @may_raise
    def token(self, operation: Text, callback: Callback | None = None) -> Answer:
        """Return a token for one *operation*, "PUSH" or "PULL"; it is valid for 5 minutes.

        Signed with the key pair.
        With *callback*, return a `Call` at once.
        """
        params = {"operation": text(operation, "the operation")}
        return self._call(callback, self.key_pair, "POST", *self._path[:2], "tokens", params=params)

    @may_raise
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
        """Upload the file *path*: a path, an open binary file from its position on, or content.

        A path (text or bytes) is opened at the call; content is a ``bytearray`` or ``memoryview``.
        The file name is *name*, or else the base name of the file, or else the hash of the file.
        *token* is a PUSH token; without it, a token is fetched with the key pair.
        *progress* is called on the worker with the number of bytes sent and the total, at most 20
        times a second. If it raises, the transfer stops and that exception is the value. It may be
        `pymdc.progress_bar`.
        The value is the entry of the file. It is an `IntegrityError` if the file grew or shrank
        meanwhile or, unless *verify* is False, if the bridge stored another hash.
        With *callback*, return a `Call` at once.
        """
        reporter, given_token = check_progress(progress), _check_given_token(token)
        callback, client, files_path = check_callback(callback), self._client, resource(*self._path)
        fetch_token, source = self._token_fetcher(client, "PUSH"), Source(path, name)

        def push(scope: CancelScope) -> Answer:
            hasher = client.background_task() if verify else None
            with reporter.begin(source.name):
                with body_of(source, scope, reporter, hasher) as body:
                    headers = {**body.headers, "x-filesize": str(body.size)}
                    request = Request("PUT", files_path, headers=headers, stream=body)
                    auth = given_token or FetchedToken(fetch_token, scope)
                    answer = client.send(request, auth, scope)
                    if refused(answer):
                        return answer
                    _check_stored_hash(answer, body, scope.operation)
                    body.stored = True
                reporter.finish(body.size)
            return answer

        return client.run(push, callback, transfer=True)

    @may_raise
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
        the value is then ``{bucket, hash, size, path}``. The file at a path is replaced only when
        the whole download is verified. The same call resumes an interrupted download to a path.
        *token* is a PULL token; without it, a token is fetched with the key pair.
        *progress* is called on the worker with the number of bytes that are verified and written
        and the total, at most 20 times a second; the total is None if the bridge sends no sizes.
        If *progress* raises, the transfer stops and that exception is the value.
        With *callback*, return a `Call` at once.
        """
        name, path = text(file_hash, "the file's hash"), self._path
        reporter, given_token = check_progress(progress), _check_given_token(token)
        client = self._client
        fetch_token = self._token_fetcher(client, "PULL")
        request = build_request("GET", resource(*path, name))

        def fetch_pointers(scope: CancelScope) -> Answer:
            return client.send(request, given_token or FetchedToken(fetch_token, scope), scope)

        if to is None:
            return client.run(fetch_pointers, callback, transfer=True)
        target, renewable = check_target(to), given_token is None

        def pull(scope: CancelScope) -> Answer:
            with reporter.begin(name_of(target) or name):
                value = download_file(
                    client, name, target, reporter, fetch_pointers, renewable, scope
                )
            return value if refused(value) else {"bucket": path[1], "hash": name, **value}

        return client.run(pull, callback, transfer=True)

    @may_raise
    def rename(self, file_hash: Text, name: Text, callback: Callback | None = None) -> Answer:
        """Give the file another *name*; the value is its entry, as in `list`.

        As in an upload, a name is cut at its last "/", and the hash is the name if it is empty.
        Signed with the key pair.
        With *callback*, return a `Call` at once.
        """
        file, params = text(file_hash, "the file's hash"), {"filename": text(name, "the name")}
        return self._call(callback, self.key_pair, "PATCH", *self._path, file, params=params)

    @may_raise
    def delete(self, file_hash: Text, callback: Callback | None = None) -> Answer:
        """Delete the file; the value is ''. Signed with the key pair.

        With *callback*, return a `Call` at once.
        """
        name = text(file_hash, "the file's hash")
        return self._call(callback, self.key_pair, "DELETE", *self._path, name)

    @property
    def _path(self) -> tuple[str, ...]:
        return ("buckets", text(self.bucket_id, "the bucket's id"), "files")

    def _token_fetcher(self, client: Client, operation: str) -> Callable[[CancelScope], Answer]:
        """Return a function that fetches a token for *operation* with *client*."""
        request = build_request(
            "POST", resource(*self._path[:2], "tokens"), {"operation": operation}
        )
        return partial(client.send, request, identify(self.key_pair))

    def __repr__(self) -> str:
        return f"<Files of bucket {self.bucket_id!r} of {self.key_pair}>"


def _check_given_token(token: Text | None) -> Token | None:
    return None if token is None else Token(check_token(token))


def _check_stored_hash(entry: Answer, body: FileBody, operation: str) -> None:
    """Raise `IntegrityError` if the hash in *entry*, the bridge's answer, is not that of *body*."""
    if body.hash is None:
        return
    sent = body.hash.hexdigest()
    stored = entry.get("hash") if isinstance(entry, dict) else None
    if stored != sent:
        if not (isinstance(stored, str) and re.fullmatch("[0-9a-f]{40}", stored)):
            stored = "something without a hash"  # not shown, as it may repeat what was sent
        raise IntegrityError(f"{operation}: the bridge stored {stored}; what was sent is {sent}")
