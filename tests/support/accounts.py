"""The account that most tests of the API use."""

from __future__ import annotations

from dataclasses import dataclass

import pymdc


@dataclass(frozen=True)
class Account:
    """A registered, activated user with one key pair."""

    user: pymdc.api.Users
    key_pair: pymdc.ECDSA
