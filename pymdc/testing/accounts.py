"""Accounts and their buckets, for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pymdc import api
from pymdc.client import Client
from pymdc.exceptions import unwrap
from pymdc.keypair import ECDSA

_numbers = itertools.count(1)
Unrecorded = Callable[[], AbstractContextManager[None]]  # requests are not those of the test


@dataclass(frozen=True)
class Account:
    """A registered and activated *user* with one *key_pair*, which the bridge knows."""

    user: api.Users
    key_pair: ECDSA
    client: Client
    _unrecorded: Unrecorded = field(repr=False)

    def bucket(
        self,
        name: str | None = None,
        *,
        storage: int = 10,
        transfer: int = 30,
        key_pairs: Sequence[ECDSA] = (),
    ) -> api.Bucket:
        """Make an empty bucket; *storage* and *transfer* are GB, *key_pairs* may use it too."""
        name = f"bucket-{next(_numbers)}" if name is None else name
        buckets = api.Buckets(self.key_pair, client=self.client)
        with self._unrecorded():
            answer = unwrap(buckets.create(name, storage, transfer, [*key_pairs]))
        return api.Bucket(answer["id"], self.key_pair, client=self.client)


def make_account(
    client: Client, activation_key: Callable[[str], str], unrecorded: Unrecorded
) -> Account:
    """Register and activate a user, and add a key pair."""
    user = api.Users(f"user{next(_numbers)}@testing.example", "password", client=client)
    keys = api.Keys(user)
    with unrecorded():
        unwrap(user.register())
        unwrap(user.activate(activation_key(user.username)))
        unwrap(keys.create())
    return Account(user, keys.key_pairs[0], client, unrecorded)
