"""The account that most tests of the API use."""

from __future__ import annotations

from dataclasses import dataclass

import pymdc


@dataclass(frozen=True)
class Account:
    """A registered, activated user with one key pair."""

    user: pymdc.api.Users
    key_pair: pymdc.ECDSA


def uploaded(listed: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the entries in a list of files as their uploads answered them: without the times."""
    return [{name: value for name, value in entry.items() if name != "created"} for entry in listed]
