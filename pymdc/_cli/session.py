"""What the verbs share: the options of every verb, and the bridge and key that they choose."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property

from pymdc import ECDSA, Client
from pymdc._cli import profile
from pymdc._cli.failures import Code, Failure
from pymdc._cli.output import Output
from pymdc.api import Bucket, Buckets, Keys


@dataclass(frozen=True)
class Identity:
    """The *endpoint* of a bridge and a *key_pair*; *source* says where they are from."""

    endpoint: str
    key_pair: ECDSA
    source: str
    email: str = ""


@dataclass
class Session:
    """The options of every verb, and what follows from them; it is made once a program."""

    profile_name: str | None = None
    progress: bool = True
    out: Output = field(default_factory=Output)

    @cached_property
    def identity(self) -> Identity:
        """The bridge and the key: those of the variables, or else of the profile."""
        private_key = os.environ.get("PYMDC_PRIVATE_KEY")
        if private_key and not self.profile_name:
            endpoint = os.environ.get("PYMDC_ENDPOINT")
            if not endpoint:
                message = "PYMDC_PRIVATE_KEY is set, but PYMDC_ENDPOINT is not"
                raise Failure(message, Code.SIGN_IN, "export PYMDC_ENDPOINT=http://HOST:6382")
            key_pair = profile.key_pair_of(private_key, "PYMDC_PRIVATE_KEY")
            return Identity(endpoint, key_pair, "PYMDC_PRIVATE_KEY")
        saved = profile.load(self.chosen_profile)
        if saved is None:
            raise self._not_signed_in()
        source = f"profile {self.chosen_profile}"
        return Identity(saved.endpoint, saved.key_pair(), source, saved.email)

    def _not_signed_in(self) -> Failure:
        if not self.profile_name:
            return Failure("not signed in", Code.SIGN_IN, "pymdc login http://HOST:6382")
        remedy = f"pymdc login --profile {self.profile_name} http://HOST:6382"
        return Failure(f"there is no profile {self.profile_name}", Code.SIGN_IN, remedy)

    @property
    def chosen_profile(self) -> str:
        """The name of the profile."""
        return self.profile_name or profile.DEFAULT

    @cached_property
    def endpoint(self) -> str:
        """The address of the bridge, without a final slash."""
        return connect(self.identity.endpoint).endpoint

    @property
    def keys(self) -> Keys:
        """The keys of the account."""
        return Keys(self._key_pair)

    @property
    def buckets(self) -> Buckets:
        """The buckets of the account."""
        return Buckets(self._key_pair)

    def bucket(self, bucket_id: str) -> Bucket:
        """Return the bucket *bucket_id*."""
        return Bucket(bucket_id, self._key_pair)

    @property
    def _key_pair(self) -> ECDSA:
        assert self.endpoint
        return self.identity.key_pair


def connect(endpoint: str) -> Client:
    """Have the default client call the bridge at *endpoint*, and return a client of that bridge.

    The default client, since it heeds all the variables of the library.
    """
    try:
        client = Client(endpoint)
    except ValueError as error:
        remedy = f"pymdc login http://{endpoint}" if "://" not in endpoint else ""
        raise Failure(str(error), Code.USAGE, remedy) from None
    os.environ["PYMDC_ENDPOINT"] = client.endpoint
    return client
