"""Too much load: what has to wait, and what is refused."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from pathlib import Path

import pytest
from plain_client import PASSWORD, Clock, Reply, User, address, ask, basic, form

from pymdc.bridge import Bridge
from pymdc.bridge.errors import Refused
from pymdc.bridge.load import Lane, Load, Throttle
from pymdc.bridge.settings import (
    FREE_FAILURES,
    FREE_REGISTRATIONS,
    MAX_OWN_HASHES,
    MAX_REMEMBERED_TRIES,
    MAX_WAITING,
)
from pymdc.bridge.storage.folder_store import FolderStore

MiB = 1024 * 1024
WRONG = (401, "Invalid email or password")
TOO_MANY = (429, "Too many wrong passwords")


def sign_in(bridge: Bridge, email: str, password: str = "0" * 64) -> Reply:
    return ask(bridge, "GET", "/keys", None, basic(email, password))


def test_wrong_passwords_for_an_account_are_slowed_down(alice: User, clock: Clock) -> None:
    for _ in range(5):
        assert sign_in(alice.bridge, alice.email).error == WRONG
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        reply = sign_in(alice.bridge, alice.email.upper(), PASSWORD)
        assert (*reply.error, reply.headers["retry-after"]) == (*TOO_MANY, str(seconds))
        clock.seconds += seconds
        assert sign_in(alice.bridge, alice.email).error == WRONG
    assert alice.ask("GET", "/keys").status == 200, "the key is not locked out"
    assert User(alice.bridge, "bob").ask("GET", "/keys").status == 200
    assert sign_in(alice.bridge, "bob@example.com", PASSWORD).status == 200
    clock.seconds += 60
    assert sign_in(alice.bridge, alice.email, PASSWORD).status == 200
    assert [sign_in(alice.bridge, alice.email).error for _ in range(5)] == 5 * [WRONG]


def test_wrong_passwords_from_an_address_are_slowed_down(alice: User, clock: Clock) -> None:
    for number in range(20):
        assert sign_in(alice.bridge, f"{number}@example.com").error == WRONG
        assert number > 18 or sign_in(alice.bridge, alice.email, PASSWORD).status == 200
    assert sign_in(alice.bridge, alice.email, PASSWORD).error == TOO_MANY
    assert alice.ask("GET", "/keys").status == 200
    clock.seconds += 1
    assert sign_in(alice.bridge, alice.email, PASSWORD).status == 200
    assert sign_in(alice.bridge, "other@example.com").error == WRONG
    assert sign_in(alice.bridge, "other@example.com").error == TOO_MANY
    clock.seconds += 901
    assert sign_in(alice.bridge, "other@example.com").error == WRONG
    assert sign_in(alice.bridge, "other@example.com").error == WRONG, "the others are forgotten"


def test_slow_upload_gives_way_when_others_wait(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.load.MAX_UPLOADS", 1)
    monkeypatch.setattr("pymdc.bridge.load.PACE_SECONDS", 0.1)
    with Bridge(data) as bridge, socket.socket() as slow:
        user = User(bridge, "alice")
        bucket, body, replies = user.bucket(), form(bytes(MiB)), list[Reply]()
        other = threading.Thread(target=lambda: replies.append(user.upload(bucket, b"waits")))
        slow.connect(address(bridge))
        slow.sendall(user.upload_head(bucket, MiB, len(body), "Expect: 100-continue"))
        assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
        slow.sendall(body[:100])
        other.start()
        while not select.select([slow], [], [], 0.05)[0]:
            slow.sendall(b"x")
        assert slow.recv(100).startswith(b"HTTP/1.1 503 ")
        other.join()
    assert [reply.status for reply in replies] == [200]


def refused(throttle: Throttle, email: str, address: str) -> bool:
    try:
        throttle.check(account=email, address=address)
    except Refused:
        return True
    return False


def test_addresses_of_one_ipv6_network_are_one(clock: Clock) -> None:
    throttle = Throttle(clock, "Too many", FREE_FAILURES)
    for number in range(20):
        throttle.add(account=f"{number}@example.com", address=f"2001:db8::{number}")
    assert refused(throttle, "new@example.com", "2001:db8::ffff")
    assert not refused(throttle, "new@example.com", "2001:db8:0:1::1")
    assert not refused(throttle, "new@example.com", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe81::1%eth0"),
    ],
)
def test_address_is_one_however_it_is_written(
    clock: Clock, address: str, same: str, other: str
) -> None:
    throttle = Throttle(clock, "Too many", FREE_FAILURES)
    for number in range(21):
        throttle.add(account=f"{number}@example.com", address=address)
    assert refused(throttle, "new@example.com", same)
    assert not refused(throttle, "new@example.com", other)


def test_remembered_tries_are_few_and_short(clock: Clock) -> None:
    throttle = Throttle(clock, "Too many", {"account": 1, "address": 1})
    for number in range(MAX_REMEMBERED_TRIES):
        throttle.add(account=f"{number}{1000 * 'x'}", address=str(number))
    assert len(throttle._tries) == MAX_REMEMBERED_TRIES
    assert max(len(name) for _, name in throttle._tries) < 256


def test_clock_that_is_set_back_locks_nobody_out(alice: User, clock: Clock) -> None:
    for _ in range(5):
        assert sign_in(alice.bridge, alice.email).error == WRONG
    clock.seconds -= 86_400
    assert sign_in(alice.bridge, alice.email, PASSWORD).headers["retry-after"] == "1"
    clock.seconds += 1
    assert sign_in(alice.bridge, alice.email, PASSWORD).status == 200


def test_registrations_from_an_address_are_slowed_down(
    bridge: Bridge, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FREE_REGISTRATIONS, "address", 3)

    def register(number: int) -> Reply:
        fields = {"email": f"{number}@example.com", "password": PASSWORD}
        return ask(bridge, "POST", "/users", json.dumps(fields))

    assert [register(number).status for number in range(3)] == 3 * [200]
    for seconds in (1, 2):
        reply = register(3)
        assert (*reply.error, reply.headers["retry-after"]) == (
            *(429, "Too many registrations"),
            str(seconds),
        )
        clock.seconds += seconds
        assert register(3 + seconds).status == 200


def test_lane_lets_so_many_run_and_some_wait() -> None:
    async def run() -> tuple[int, list[object]]:
        lane, release, running = Lane(2), asyncio.Event(), 0

        async def use() -> None:
            nonlocal running
            async with lane:
                running += 1
                await release.wait()

        uses = [asyncio.create_task(use()) for _ in range(2 + MAX_WAITING + 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        most = running
        release.set()
        return most, list(await asyncio.gather(*uses, return_exceptions=True))

    most, results = asyncio.run(run())
    refusals = [result for result in results if isinstance(result, Refused)]
    assert most == 2
    assert [(refusal.status, refusal.headers) for refusal in refusals] == 3 * [
        (503, (("Retry-After", "30"),))
    ]
    assert results.count(None) == 2 + MAX_WAITING


def test_lane_gives_up_waiting() -> None:
    async def run() -> None:
        lane = Lane(1, seconds=0.01)
        async with lane:
            with pytest.raises(Refused, match="busy"):
                async with lane:
                    pass
        async with lane:
            pass

    asyncio.run(run())


def test_passwords_of_one_account_leave_room_for_those_of_others(tmp_path: Path) -> None:
    async def run() -> None:
        store = FolderStore(tmp_path, fsync=False)
        load, release, statuses = (
            Load(tmp_path, store, 0, time.time, reserve=False),
            asyncio.Event(),
            [],
        )

        async def sign_in(account: str) -> None:
            try:
                async with load.hashing(account):
                    await release.wait()
            except Refused as refused:
                statuses.append(refused.status)

        tasks = [asyncio.create_task(sign_in("eve@example.com")) for _ in range(100)]
        await asyncio.sleep(0)
        async with load.hashing("alice@example.com"):
            release.set()
        await asyncio.gather(*tasks)
        assert statuses == (100 - MAX_OWN_HASHES - MAX_WAITING) * [503]
        assert load._own_hashes == {}

    asyncio.run(run())


def test_password_that_has_to_wait_takes_nobodys_turn(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        assert sign_in(alice.bridge, alice.email).error == WRONG
    monkeypatch.setattr(Load, "hashing", None)  # it is refused before
    assert sign_in(alice.bridge, alice.email).error == TOO_MANY
    header = basic(alice.email, "0" * 64)
    assert ask(alice.bridge, "GET", "/", None, header).status == 200, "nobody asks for a password"
