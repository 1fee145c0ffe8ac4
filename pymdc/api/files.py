"""The files of a bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, overload

from pymdc import _multipart, _shards
from pymdc._auth import Signature, Token
from pymdc._multipart import FileBody, Path
from pymdc._request import Request, resource, settle
from pymdc._text import Text, text
from pymdc._workers import Call, Callback
from pymdc.api._resource import Resource
from pymdc.api.keys import checked
from pymdc.client import Answer, Client
from pymdc.exceptions import IntegrityError
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
        self, path: Path | BinaryIO, token: Text | None = None, callback: None = None
    ) -> Answer: ...
    @overload
    def upload(self, path: Path | BinaryIO, token: Text | None, callback: Callback) -> Call: ...
    @overload
    def upload(
        self, path: Path | BinaryIO, token: Text | None = None, *, callback: Callback
    ) -> Call: ...
    def upload(
        self, path: Path | BinaryIO, token: Text | None = None, callback: Callback | None = None
    ) -> Answer:
        """Store the file at *path*, or an open binary file from its position on.

        The *token*, a PUSH token, says who may; without one the key signs for one.
        The value is the entry; an `IntegrityError` when the bridge names it by another hash.
        """
        source, client = _multipart.checked(path), self._client

        def push(granted: Token) -> Answer:
            with _multipart.opened(source) as body:
                return self._push(client, body, granted)

        return client.run(self._with_token(client, "PUSH", token, push), callback)

    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        callback: None = None,
        *,
        to: Path | BinaryIO | None = None,
    ) -> Answer: ...
    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None,
        callback: Callback,
        *,
        to: Path | BinaryIO | None = None,
    ) -> Call: ...
    @overload
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        *,
        callback: Callback,
        to: Path | BinaryIO | None = None,
    ) -> Call: ...
    def download(
        self,
        file_hash: Text,
        token: Text | None = None,
        callback: Callback | None = None,
        *,
        to: Path | BinaryIO | None = None,
    ) -> Answer:
        """Return the pointers to the shards, ``[{hash, token, operation, channel}]``.

        With *to*, a path or an open binary file, fetch and verify the shards and write the file;
        the value is ``{bucket, hash, size, path}``, and a path holds the whole file or nothing new.
        The *token*, a PULL token, says who may; without one the key signs for one.
        """
        name, client = text(file_hash, "the file's hash"), self._client

        def pull(granted: Token) -> Answer:
            pointers = client.send(settle("GET", resource(*self._path, name)), granted)
            if to is None or "error" in pointers:
                return pointers
            with _shards.target(to) as (out, path):
                size = _shards.fetch(_shards.checked(pointers), name, client.pull, out)
            return {"bucket": self._bucket_id, "hash": name, "size": size, "path": path}

        return client.run(self._with_token(client, "PULL", token, pull), callback)

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
        self, client: Client, operation: str, given: Text | None, use: Callable[[Token], Answer]
    ) -> Callable[[], Any]:
        """Return the work that gets a token, if none is *given*, and uses it."""
        if given is not None:
            token = Token(_printable(given))
            return lambda: use(token)

        def work() -> Any:
            answer = client.send(self._token_request(operation), self._auth)
            return answer if "error" in answer else use(Token(answer["token"]))

        return work

    def _push(self, client: Client, body: FileBody, granted: Token) -> Answer:
        headers = {
            "Content-Type": body.content_type,
            "Content-Length": str(body.length),
            "x-filesize": str(body.size),
        }
        request = Request("PUT", resource(*self._path), headers=headers, stream=body)
        try:
            answer = client.send(request, granted)
        except _multipart.Unreadable as error:
            raise error.__cause__ or error from None
        found = body.hash.hexdigest()
        if "error" not in answer and answer["hash"] != found:
            raise IntegrityError(f"the bridge stored {answer['hash']}; what was sent is {found}")
        return answer


def _printable(token: object) -> str:
    token = text(token, "the token")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that no token has; expected 64 hex digits")
    return token
