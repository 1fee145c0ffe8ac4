"""The files of a bucket."""

from __future__ import annotations

import re
from functools import partial
from typing import BinaryIO, overload

from pymdc import _multipart, _part, _progress, _shards, _tokens
from pymdc._auth import Signature, Token
from pymdc._call import Call, Callback
from pymdc._multipart import FileBody, Source
from pymdc._part import Target
from pymdc._progress import Function as Told
from pymdc._request import Request, resource, settle
from pymdc._scope import Scope
from pymdc._text import Text, text
from pymdc.api._resource import Resource
from pymdc.api.keys import checked
from pymdc.client import Answer, Client
from pymdc.exceptions import BridgeError, IntegrityError, refused, unwrap
from pymdc.keypair import ECDSA


class Files(Resource):
    """The files of the bucket *bucket_id*, for the user whose *key_pair* signs."""

    def __init__(self, bucket_id: Text, key_pair: ECDSA, *, client: Client | None = None) -> None:
        super().__init__(client)
        self._auth = Signature(checked(key_pair))
        self._bucket_id = text(bucket_id, "the bucket's id")
        self._path = ("buckets", self._bucket_id, "files")

    @overload
    def list(self, callback: None = None) -> Answer: ...
    @overload
    def list(self, callback: Callback) -> Call: ...
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the entries: ``[{bucket, mimetype, filename, size, hash}]``. The key signs."""
        return self._call(callback, self._auth, "GET", *self._path)

    @overload
    def token(self, operation: Text, callback: None = None) -> Answer: ...
    @overload
    def token(self, operation: Text, callback: Callback) -> Call: ...
    def token(self, operation: Text, callback: Callback | None = None) -> Answer:
        """Return a token for one *operation*, "PUSH" or "PULL", within 5 minutes. The key signs."""
        return self._client.call(self._token_request(operation), self._auth, callback)

    @overload
    def upload(
        self,
        path: Source,
        token: Text | None = None,
        callback: None = None,
        *,
        progress: Told | None = None,
        verify: bool = True,
    ) -> Answer: ...
    @overload
    def upload(
        self,
        path: Source,
        token: Text | None,
        callback: Callback,
        *,
        progress: Told | None = None,
        verify: bool = True,
    ) -> Call: ...
    @overload
    def upload(
        self,
        path: Source,
        token: Text | None = None,
        *,
        callback: Callback,
        progress: Told | None = None,
        verify: bool = True,
    ) -> Call: ...
    def upload(
        self,
        path: Source,
        token: Text | None = None,
        callback: Callback | None = None,
        *,
        progress: Told | None = None,
        verify: bool = True,
    ) -> Answer:
        """Store a file: that at *path*, an open binary one from its position on, or bytes.

        The *token*, a PUSH token, says who may; without one the key signs for one.
        *progress* is called with the bytes sent and their total, at most 20 times a second, on
        the worker; what it raises ends the transfer.
        The value is the entry; an `IntegrityError` when the bridge names it by another hash, which
        *verify* False leaves unsaid, or when the file grew or shrank meanwhile.
        """
        source, told, client = _multipart.checked(path), _progress.checked(progress), self._client
        granted = _tokens.given(token)
        fetch = partial(client.send, self._token_request("PUSH"), self._auth)

        def push(scope: Scope) -> Answer:
            with _multipart.opened(source, told, client.aside() if verify else None) as body:
                use = partial(self._push, client, body)
                answer = _tokens.spend(granted, fetch, use, scope)
                if refused(answer):
                    return answer
                entry = _stored(answer, body, scope.doing)
                body.stored = True
            told.finish(body.size)
            return entry

        return client.run(push, callback, transfer=True)

    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        callback: None = None,
        *,
        to: Target | BinaryIO | None = None,
        progress: Told | None = None,
    ) -> Answer: ...
    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None,
        callback: Callback,
        *,
        to: Target | BinaryIO | None = None,
        progress: Told | None = None,
    ) -> Call: ...
    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        *,
        callback: Callback,
        to: Target | BinaryIO | None = None,
        progress: Told | None = None,
    ) -> Call: ...
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        callback: Callback | None = None,
        *,
        to: Target | BinaryIO | None = None,
        progress: Told | None = None,
    ) -> Answer:
        """Return the pointers to the shards, ``[{hash, size, token, operation, channel}]``.

        With *to*, a path or an open binary file, fetch and verify the shards and write the file;
        the value is ``{bucket, hash, size, path}``, and a path holds the whole file or nothing new.
        What an interrupted download to a path has brought is used by the next one of that file.
        The *token*, a PULL token, says who may; without one the key signs for one.
        *progress* is called with the bytes that are verified and written and their total (None
        where the bridge tells no sizes), at most 20 times a second, on the worker; what it raises
        ends the transfer.
        """
        name, told, client = (
            text(file_hash, "the file's hash"),
            _progress.checked(progress),
            self._client,
        )
        granted = _tokens.given(token)
        fetch = partial(client.send, self._token_request("PULL"), self._auth)
        request = settle("GET", resource(*self._path, name))
        to = None if to is None else _part.writable(to)

        def ask(scope: Scope) -> Answer:
            return _tokens.spend(granted, fetch, partial(client.send, request), scope)

        def again(scope: Scope) -> _shards.Pointers:
            scope.check()
            return _shards.checked(unwrap(ask(scope)), scope.doing)

        def pull(scope: Scope) -> Answer:
            pointers = ask(scope)
            if to is None or refused(pointers):
                return pointers
            pointers = _shards.checked(pointers, scope.doing)
            renew = partial(again, scope) if granted is None else None
            try:
                with _part.target(to, name) as out:
                    file = _shards.Assembly(pointers, name, out, told, scope.step, client.aside())
                    shards = partial(client.pull, scope=scope, in_order=file.in_order)
                    size = _shards.assemble(file, pointers, shards, renew)
            except BridgeError as refusal:  # of other pointers
                return refusal.answer
            told.finish(size)
            return {"bucket": self._bucket_id, "hash": name, "size": size, "path": out.path}

        return client.run(pull, callback, transfer=True)

    @overload
    def delete(self, file_hash: Text, callback: None = None) -> Answer: ...
    @overload
    def delete(self, file_hash: Text, callback: Callback) -> Call: ...
    def delete(self, file_hash: Text, callback: Callback | None = None) -> Answer:
        """Remove the file; the value is ''. The key signs."""
        name = text(file_hash, "the file's hash")
        return self._call(callback, self._auth, "DELETE", *self._path, name)

    def _token_request(self, operation: Text) -> Request:
        params = {"operation": text(operation, "the operation")}
        return settle("POST", resource(*self._path[:2], "tokens"), params)

    def _push(self, client: Client, body: FileBody, granted: Token, scope: Scope) -> Answer:
        headers = {
            "Content-Type": body.content_type,
            "Content-Length": str(body.length),
            "x-filesize": str(body.size),
        }
        request = Request("PUT", resource(*self._path), headers=headers, stream=body)
        return client.send(request, granted, scope)


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
