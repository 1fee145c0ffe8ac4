"""The two rules by which a nonce is fresh.

Where one says False, its caller must undo the transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TypeAlias

import sqlalchemy as sa

from pymdc.bridge.metadata import INSERTS, nonce_floors, nonces

_WHO = sa.bindparam("who", type_=sa.String)
_NONCE = sa.bindparam("fresh", type_=sa.Float)
_FLOOR = sa.select(nonce_floors.c.floor).where(nonce_floors.c.owner == _WHO).scalar_subquery()
_ABOVE_FLOOR = sa.select(_WHO, _NONCE).where(sa.func.coalesce(_FLOOR, 0) < _NONCE)
_TAKE = {
    name: insert(nonces).from_select(["owner", "nonce"], _ABOVE_FLOOR).on_conflict_do_nothing()
    for name, insert in INSERTS.items()
}


class Once:
    """Each nonce once, in any order among the *window* largest; those below are refused.

    What is below the window is cleared away once in about *prune_every* nonces.
    """

    def __init__(self, window: int = 10_000, prune_every: int = 1_000) -> None:
        self._window = window
        self._prune_every = prune_every

    def spend(self, connection: sa.Connection, owners: Sequence[str], nonce: float) -> bool:
        """Take *nonce* from all *owners*; False when one has seen it, or larger ones enough."""
        rows = [{"who": owner, "fresh": nonce} for owner in owners]
        taken = connection.execute(_TAKE[connection.dialect.name], rows).rowcount
        if taken == len(owners) and secrets.randbelow(self._prune_every) == 0:
            for owner in owners:
                self._prune(connection, owner)
        return bool(taken == len(owners))

    def _prune(self, connection: sa.Connection, owner: str) -> None:
        mine = nonces.c.owner == owner
        downwards = sa.select(nonces.c.nonce).where(mine).order_by(nonces.c.nonce.desc())
        floor = connection.execute(downwards.offset(self._window).limit(1)).scalar()
        if floor is not None:
            _raise_floor(connection, [owner], floor)
            connection.execute(sa.delete(nonces).where(mine, nonces.c.nonce <= floor))


class AsIn2016:
    """A nonce is fresh when it is not below the last one; an equal one may be a replay."""

    def spend(self, connection: sa.Connection, owners: Sequence[str], nonce: float) -> bool:
        """Take *nonce* from all *owners*; False when one has seen a larger one."""
        return _raise_floor(connection, owners, nonce) == len(owners)


Rule: TypeAlias = Once | AsIn2016
RULES: dict[str, Callable[[], Rule]] = {"once": Once, "2016": AsIn2016}


def _raise_floor(connection: sa.Connection, owners: Sequence[str], floor: float) -> int:
    row = INSERTS[connection.dialect.name](nonce_floors)
    statement = row.on_conflict_do_update(
        index_elements=["owner"],
        set_={"floor": row.excluded.floor},
        where=nonce_floors.c.floor <= row.excluded.floor,
    )
    rows = [{"owner": owner, "floor": floor} for owner in owners]
    return int(connection.execute(statement, rows).rowcount)
