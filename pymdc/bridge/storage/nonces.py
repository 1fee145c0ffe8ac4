"""The two rules that decide whether a nonce may be used.

If a rule returns False, the caller should roll the transaction back. Where it cannot, no harm is
done: the same request is refused again, and no other one has the same r.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pymdc.bridge.settings import NONCE_WINDOW
from pymdc.bridge.storage.prepared import Prepared
from pymdc.bridge.storage.tables import nonce_floors, old_nonces, public_keys, used_nonces, users

_NONCE = sa.bindparam("fresh", type_=sa.Float)
_R = sa.bindparam("signed", type_=sa.String)


def _given(number: int) -> sa.Select[tuple[str]]:
    return sa.select(sa.bindparam(f"owner{number}", type_=sa.String).label("owner"))


def _insert_fresh(*owners: sa.Select[tuple[str]]) -> Any:
    """Return the statement that inserts a nonce for each of *owners*.

    One statement, so that it can be a transaction of its own.
    """
    owner = sa.union_all(*owners).subquery().c.owner
    floor = sa.select(nonce_floors.c.floor).where(nonce_floors.c.owner == owner).scalar_subquery()
    is_old = sa.exists().where(old_nonces.c.owner == owner, old_nonces.c.nonce == _NONCE)
    fresh = sa.select(owner, _NONCE, _R).where(sa.func.coalesce(floor, 0) < _NONCE, ~is_old)
    inserted = insert(used_nonces).from_select(["owner", "nonce", "r"], fresh)
    return inserted.on_conflict_do_nothing()


def _insert_fresh_of_user() -> sa.Select[Any]:
    """Return the statement that finds the active user of a key, and inserts a nonce for both.

    Only PostgreSQL can do both at once.
    """
    user = (
        sa.select(users.c.email)
        .join(public_keys)
        .where(
            public_keys.c.key == sa.bindparam("key"),
            sa.or_(public_keys.c.proven, ~sa.bindparam("proven", type_=sa.Boolean)),
            users.c.activation.is_(None),
            ~users.c.disabled,
        )
        .cte("signer")
    )
    owners = sa.select(user.c.email.label("owner")), _given(0).select_from(user)
    used = _insert_fresh(*owners).returning(used_nonces.c.owner).cte("used")
    count = sa.select(sa.func.count()).select_from(used).scalar_subquery()
    return sa.select(user.c.email, count.label("used"))


_INSERT_FRESH = {owners: Prepared(_insert_fresh(*map(_given, range(owners)))) for owners in (1, 2)}
_INSERT_FRESH_OF_USER = Prepared(_insert_fresh_of_user())


class Once:
    """A nonce may be used once with each r of a signature, so several requests may share it.

    For each owner the *window* uses with the largest nonces are remembered, and also every other
    use of the smallest of these nonces.
    About once in *prune_every* uses, smaller nonces, and all below them, are refused from then on.
    Their uses are deleted the next time: until then a statement of another bridge may be running
    that does not know of the refusal yet.
    """

    def __init__(self, window: int = NONCE_WINDOW, prune_every: int = 1_000) -> None:
        self._window = window
        self._prune_every = prune_every

    def use(self, connection: sa.Connection, owners: Sequence[str], nonce: float, r: str) -> bool:
        """Record that all *owners* use *nonce* with *r*; return False if one of them may not.

        Somebody who replays a request can change s and the encoding of the signature, but not r.
        """
        values: dict[str, object] = {f"owner{number}": owner for number, owner in enumerate(owners)}
        values |= {"fresh": nonce, "signed": r}
        used = _INSERT_FRESH[len(owners)].count(connection, values)
        return self._is_used(connection, owners, used)

    def use_as_user(
        self, connection: sa.Connection, key: str, point: str, nonce: float, r: str, *, proven: bool
    ) -> str | None:
        """Record that the active user of *key* and its *point* use *nonce*; return the e-mail.

        One statement on PostgreSQL does both. None if there is no such user, or none of a *proven*
        key, or if the nonce may not be used: nobody else may use it with this *r* either.
        """
        values = {"key": key, "proven": proven, "owner0": point, "fresh": nonce, "signed": r}
        row = _INSERT_FRESH_OF_USER.first(connection, values)
        if row is None:
            return None
        email = str(row["email"])
        return email if self._is_used(connection, [email, point], row["used"]) else None

    def _is_used(self, connection: sa.Connection, owners: Sequence[str], used: int) -> bool:
        if used != len(owners):
            return False
        if secrets.randbelow(self._prune_every) == 0:
            for owner in owners:
                self._prune(connection, owner)
        return True

    def _prune(self, connection: sa.Connection, owner: str) -> None:
        mine, nonce = used_nonces.c.owner == owner, used_nonces.c.nonce
        downwards = sa.select(nonce).where(mine).order_by(nonce.desc())
        smallest = downwards.offset(self._window - 1).limit(1).scalar_subquery()
        below = sa.select(sa.func.max(nonce)).where(mine, nonce < smallest)
        its_floor = sa.select(nonce_floors.c.floor).where(nonce_floors.c.owner == owner)
        floor, before = connection.execute(
            sa.select(below.scalar_subquery(), its_floor.scalar_subquery())
        ).one()
        if before is not None:
            connection.execute(sa.delete(used_nonces).where(mine, nonce <= before))
        if floor is not None:
            _raise_floor(connection, [owner], floor)


class AsIn2016:
    """A nonce may be used unless it is smaller than the last one; so a replay may be accepted."""

    def use(self, connection: sa.Connection, owners: Sequence[str], nonce: float, r: str) -> bool:
        """Record that all *owners* use *nonce*; return False if one has used a larger one."""
        return _raise_floor(connection, owners, nonce) == len(owners)

    def use_as_user(self, *_args: object, **_options: object) -> None:
        """Return None: there is no statement that does it all."""


NonceRule: TypeAlias = Once | AsIn2016
RULES: dict[str, Callable[[], NonceRule]] = {"once": Once, "2016": AsIn2016}


def _raise_floor(connection: sa.Connection, owners: Sequence[str], floor: float) -> int:
    row = insert(nonce_floors)
    statement = row.on_conflict_do_update(
        index_elements=["owner"],
        set_={"floor": row.excluded.floor},
        where=nonce_floors.c.floor <= row.excluded.floor,
    )
    rows = [{"owner": owner, "floor": floor} for owner in owners]
    return int(connection.execute(statement, rows).rowcount)
