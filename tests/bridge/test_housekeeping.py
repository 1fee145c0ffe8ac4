"""What the bridge does beside the requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymdc.bridge import Bridge
from pymdc.bridge.errors import UnavailableError


def test_what_was_postponed_is_tried_until_the_database_answers(tmp_path: Path) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise UnavailableError("the database did not answer")

    with Bridge(tmp_path / "data") as bridge:
        bridge._housekeeper.postpone(work)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                bridge._housekeeper.keep_house()
        for _ in range(2):
            bridge._housekeeper.keep_house()
    assert tries == [0, 1, 2]
