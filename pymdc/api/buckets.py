"""Buckets: all of a user's, and one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

from pymdc._auth import Signature
from pymdc._call import Call, Callback
from pymdc._text import Text, text, whole
from pymdc.api._resource import Resource
from pymdc.api.files import Files
from pymdc.api.keys import checked
from pymdc.client import Answer, Client
from pymdc.keypair import ECDSA


class Buckets(Resource):
    """The buckets of the user whose *key_pair* signs."""

    def __init__(self, key_pair: ECDSA, *, client: Client | None = None) -> None:
        super().__init__(client)
        self._auth = Signature(checked(key_pair))

    @overload
    def create(
        self,
        name: Text,
        storage: int,
        transfer: int,
        key_pairs: Iterable[ECDSA],
        callback: None = None,
    ) -> Answer: ...
    @overload
    def create(
        self,
        name: Text,
        storage: int,
        transfer: int,
        key_pairs: Iterable[ECDSA],
        callback: Callback,
    ) -> Call: ...
    def create(
        self,
        name: Text,
        storage: int,
        transfer: int,
        key_pairs: Iterable[ECDSA],
        callback: Callback | None = None,
    ) -> Answer:
        """Make a bucket of *storage* and *transfer* GB that *key_pairs* may use. The key signs."""
        params = {
            "name": text(name, "the name"),
            "storage": whole(storage, "storage"),
            "transfer": whole(transfer, "transfer"),
            "pubkeys": [key_pair.get_public_key() for key_pair in _several(key_pairs)],
        }
        return self._call(callback, self._auth, "POST", "buckets", params=params)

    @overload
    def list(self, callback: None = None) -> Answer: ...
    @overload
    def list(self, callback: Callback) -> Call: ...
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the user's buckets. The key signs."""
        return self._call(callback, self._auth, "GET", "buckets")


class Bucket(Resource):
    """The bucket *bucket_id* (24 hexadecimal digits); its ``files`` are a `Files`."""

    def __init__(self, bucket_id: Text, key_pair: ECDSA, *, client: Client | None = None) -> None:
        super().__init__(client)
        self._auth = Signature(checked(key_pair))
        self._path = ("buckets", text(bucket_id, "the bucket's id"))
        self.files = Files(bucket_id, key_pair, client=client)

    @overload
    def list(self, callback: None = None) -> Answer: ...
    @overload
    def list(self, callback: Callback) -> Call: ...
    def list(self, callback: Callback | None = None) -> Answer:
        """Return this bucket's metadata. The key signs."""
        return self._call(callback, self._auth, "GET", *self._path)

    @overload
    def patch(self, params: Mapping[str, Any], callback: None = None) -> Answer: ...
    @overload
    def patch(self, params: Mapping[str, Any], callback: Callback) -> Call: ...
    def patch(self, params: Mapping[str, Any], callback: Callback | None = None) -> Answer:
        """Change *params*, of name, storage, transfer and pubkeys. The key signs."""
        return self._call(callback, self._auth, "PATCH", *self._path, params=params)

    @overload
    def delete(self, callback: None = None) -> Answer: ...
    @overload
    def delete(self, callback: Callback) -> Call: ...
    def delete(self, callback: Callback | None = None) -> Answer:
        """Remove the bucket and its files; the value is ''. The key signs."""
        return self._call(callback, self._auth, "DELETE", *self._path)


def _several(key_pairs: object) -> list[ECDSA]:
    if not isinstance(key_pairs, Iterable):
        raise TypeError(f"key_pairs is {type(key_pairs).__name__}; expected a list of ECDSA")
    return [checked(key_pair) for key_pair in key_pairs]
