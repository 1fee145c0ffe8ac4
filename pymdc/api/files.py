"""The files of a bucket."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, overload

from pymdc import _multipart, _part, _progress, _shards
from pymdc._again import Busy
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
from pymdc.exceptions import (
    BridgeError,
    ConnectError,
    IntegrityError,
    NetworkError,
    refused,
    unwrap,
)
from pymdc.keypair import ECDSA

_TRIES = 3
_SPENT = {"error": "Invalid or expired token"}
_log = logging.getLogger("pymdc")


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
        granted = None if token is None else Token(_printable(token))

        def push(scope: Scope) -> Answer:
            with _multipart.opened(source, told, client.aside() if verify else None) as body:
                use = partial(self._push, client, body)
                answer = self._with_token("PUSH", granted, use, scope)
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
        granted = None if token is None else Token(_printable(token))
        request = settle("GET", resource(*self._path, name))
        to = None if to is None else _part.writable(to)

        def ask(scope: Scope) -> Answer:
            return self._with_token("PULL", granted, partial(client.send, request), scope)

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

    def _with_token(
        self,
        operation: str,
        given: Token | None,
        use: Callable[[Token, Scope], Answer],
        scope: Scope,
    ) -> Answer:
        """Return what *use* makes of the token that is *given*, or else of one fetched for it.

        A token is spent by arriving; for another try only one that was fetched here is replaced.
        """
        if given is not None:
            try:
                return use(given, scope)
            except Busy as busy:
                return busy.response.decode()
            except NetworkError as error:
                raise _with_hint(error) from error
        for tries_left in reversed(range(_TRIES)):
            answer = self._client.send(self._token_request(operation), self._auth, scope)
            if refused(answer):
                return answer
            granted = _granted(answer, scope.doing)
            try:
                result = use(granted, scope)
            except Busy as busy:
                if not tries_left or busy.wait > scope.left():
                    return busy.response.decode()
                told = f"{scope.doing} answered {busy.response.status}"
                _log.warning("%s; trying it with a new token in %.3g s", told, busy.wait)
                scope.sleep(busy.wait)
            except NetworkError as error:
                scope.check()
                if not tries_left or isinstance(error, ConnectError):
                    raise
                _log.warning("%s; trying it with a new token", error)
            else:
                if not tries_left or result != _SPENT:
                    return result
        raise AssertionError("the last try returns or raises")

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


def _with_hint(error: NetworkError) -> NetworkError:
    if isinstance(error, ConnectError):
        return error
    return type(error)(f"{error}; it was not sent again, because its token may be spent")


def _granted(answer: Answer, tried: str) -> Token:
    """Return the token in *answer*, which *tried* got; `IntegrityError` when it holds none."""
    try:
        return Token(_printable(answer["token"]))
    except (TypeError, ValueError, LookupError):
        raise IntegrityError(
            f"{tried}: the answer holds no token; is something else listening at the endpoint?"
        ) from None


def _printable(token: object) -> str:
    token = text(token, "the token")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that no token has; expected 64 hex digits")
    return token
