"""The buckets of a user, and a single bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pymdc._arguments import Callback, Gigabytes, Text, gigabytes, text
from pymdc._calls.raising import may_raise
from pymdc._http.auth import Identity, check_identity
from pymdc.api._resource import Resource
from pymdc.api.files import Files
from pymdc.api.keys import public_keys
from pymdc.client import Answer, Client
from pymdc.keypair import ECDSA


class Buckets(Resource):
    """The buckets of the user to whom *key_pair* belongs.

    A `Users` may be given instead of a key pair; it authenticates with its password.
    Attributes: ``key_pair``.
    """

    def __init__(self, key_pair: Identity, *, client: Client | None = None) -> None:
        super().__init__(client)
        self.key_pair = check_identity(key_pair)

    @may_raise
    def create(
        self,
        name: Text,
        storage: Gigabytes,
        transfer: Gigabytes,
        key_pairs: Iterable[ECDSA],
        callback: Callback | None = None,
    ) -> Answer:
        """Create a bucket with quotas of *storage* and *transfer* GB. Signed with the key pair.

        Quotas are whole numbers; a fraction is cut off.
        The owners of *key_pairs* may upload to the bucket and download from it; they need no
        account.
        With *callback*, return a `Call` at once.
        """
        params = {
            "name": text(name, "the name"),
            "storage": gigabytes(storage, "storage"),
            "transfer": gigabytes(transfer, "transfer"),
            "pubkeys": public_keys(key_pairs),
        }
        return self._call(callback, self.key_pair, "POST", "buckets", params=params)

    @may_raise
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the user's buckets. Signed with the key pair.

        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "GET", "buckets")

    @may_raise
    def usage(self, callback: Callback | None = None) -> Answer:
        """Return ``{stored, limit, disk_free, buckets: [{id, stored, files, transferred}]}``.

        Sizes are in bytes, and *transferred* in this calendar month (UTC); *limit* is in GB, and
        None without a limit.
        Signed with the key pair.
        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "GET", "usage")

    def __repr__(self) -> str:
        return f"<Buckets of {self.key_pair}>"


class Bucket(Resource):
    """The bucket *bucket_id* (24 hexadecimal digits); *key_pair* is as in `Buckets`.

    Attributes: ``bucket_id``; ``key_pair``; ``files``, a `Files` that has its own ``bucket_id``
    and ``key_pair``.
    """

    def __init__(
        self, bucket_id: Text, key_pair: Identity, *, client: Client | None = None
    ) -> None:
        super().__init__(client)
        self.bucket_id = text(bucket_id, "the bucket's id")
        self.key_pair = check_identity(key_pair)
        self.files = Files(bucket_id, key_pair, client=client)

    @may_raise
    def list(self, callback: Callback | None = None) -> Answer:
        """Return the metadata of this bucket. Signed with the key pair.

        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "GET", *self._path)

    @may_raise
    def patch(self, params: Mapping[str, Any], callback: Callback | None = None) -> Answer:
        """Change the fields in *params*: name, storage, transfer or pubkeys.

        Signed with the key pair.
        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "PATCH", *self._path, params=params)

    @may_raise
    def delete(self, callback: Callback | None = None) -> Answer:
        """Delete the bucket and its files; the value is ''. Signed with the key pair.

        With *callback*, return a `Call` at once.
        """
        return self._call(callback, self.key_pair, "DELETE", *self._path)

    @property
    def _path(self) -> tuple[str, ...]:
        return ("buckets", text(self.bucket_id, "the bucket's id"))

    def __repr__(self) -> str:
        return f"<Bucket {self.bucket_id!r} of {self.key_pair}>"
