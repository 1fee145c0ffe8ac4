"""How many statements a request costs the database, as docs/bridge-internals.rst says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import sqlalchemy as sa
from modes import PATIENCE
from plain_client import DATA, PASSWORD, Key, Reply, User, ask, basic, form, pull, upload_headers

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.routes import ROUTES
from pymdc.bridge.storage import prepared
from pymdc.bridge.storage.nonces import RULES, Once

DOCUMENT = Path(__file__).parents[2] / "docs" / "bridge-internals.rst"
STATED = dict(re.findall(r"^``(\w+.*?)``.*? (\d+)$", DOCUMENT.read_text("utf-8"), re.MULTILINE))
FILE = file_hash(DATA)
MAILED = SimpleQueue[str]()  # links and tokens
Ask = Callable[[User, str], Reply | bytes]


@pytest.fixture
def bridge(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """Give a bridge that does not delete old nonces, which it does at random."""
    monkeypatch.setitem(RULES, "once", partial(Once, prune_every=10**9))
    with Bridge(data, shard_size=1000, announce=lambda _, link: MAILED.put(link)) as running:
        yield running


@pytest.fixture
def statements(alice: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    executed: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        executed.append(statement)

    def note_prepared(connection: sa.Connection, compiled: Any, values: Any) -> Any:
        executed.append(compiled.sql)
        return execute(connection, compiled, values)

    execute = prepared._execute
    monkeypatch.setattr(prepared, "_execute", note_prepared)
    sa.event.listen(alice.bridge._database.engine, "before_cursor_execute", note)
    yield executed
    sa.event.remove(alice.bridge._database.engine, "before_cursor_execute", note)


def register(alice: User, _bucket: str) -> Reply:
    fields = {"email": "bob@example.com", "password": PASSWORD, "pubkey": Key("bob").public}
    return ask(alice.bridge, "POST", "/users", json.dumps(fields))


def change_password(alice: User, _bucket: str) -> Reply:
    body, password = json.dumps({"password": PASSWORD}), basic(alice.email, PASSWORD)
    return ask(alice.bridge, "PATCH", f"/users/{alice.email}", body, password)


def request_reset(alice: User, _bucket: str) -> Reply:
    while not MAILED.empty():
        MAILED.get()
    reply = ask(alice.bridge, "POST", f"/users/{alice.email}/reset")
    MAILED.put(MAILED.get(timeout=PATIENCE))  # the bridge has finished
    return reply


def reset(alice: User, _bucket: str) -> Reply:
    body = json.dumps({"token": MAILED.get(), "password": PASSWORD})
    return ask(alice.bridge, "PUT", f"/users/{alice.email}/reset", body)


def remove_account(alice: User, _bucket: str) -> Reply:
    password = basic(alice.email, PASSWORD)
    return ask(alice.bridge, "DELETE", f"/users/{alice.email}", None, password)


def requests(alice: User, bucket: str) -> dict[str, Ask]:
    """Return a request for each route; everything that they need exists."""
    key, pulling = Key("other").public, {"x-token": alice.token(bucket, "PULL")}
    pushing = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    content_token = alice.token(bucket, "PULL")
    alice.upload(bucket, DATA[::-1])
    pointer = alice.pointers(bucket, file_hash(DATA[::-1])).json[0]
    fields = {"email": "carol@example.com", "password": PASSWORD}
    ask(alice.bridge, "POST", "/users", json.dumps(fields))
    link = f"/activations/{alice.bridge.activation_key(fields['email'])}"
    files = f"/buckets/{bucket}/files"
    return {
        "GET /": lambda alice, _: ask(alice.bridge, "GET", "/"),
        "POST /users": register,
        "GET /activations/{token}": lambda alice, _: ask(alice.bridge, "GET", link),
        "GET /keys": lambda alice, _: alice.ask("GET", "/keys"),
        "POST /keys": lambda alice, _: alice.ask("POST", "/keys", {"key": key}),
        "DELETE /keys/{key}": lambda alice, _: alice.ask("DELETE", f"/keys/{key}"),
        "GET /buckets": lambda alice, _: alice.ask("GET", "/buckets"),
        "POST /buckets": lambda alice, _: alice.ask("POST", "/buckets", {}),
        "GET /buckets/{id}": lambda alice, id: alice.ask("GET", f"/buckets/{id}"),
        "PATCH /buckets/{id}": lambda alice, id: alice.ask(
            "PATCH", f"/buckets/{id}", {"name": "x"}
        ),
        "POST /buckets/{id}/tokens": lambda alice, id: alice.ask(
            "POST", f"/buckets/{id}/tokens", {"operation": "PULL"}
        ),
        "GET /buckets/{id}/files": lambda alice, _: alice.ask("GET", files),
        "PUT /buckets/{id}/files": lambda alice, _: ask(
            alice.bridge, "PUT", files, form(DATA), pushing
        ),
        "GET /buckets/{id}/files/{hash}": lambda alice, _: ask(
            alice.bridge, "GET", f"{files}/{FILE}", None, pulling
        ),
        "PATCH /buckets/{id}/files/{hash}": lambda alice, _: alice.ask(
            "PATCH", f"{files}/{FILE}", {"filename": "b.bin"}
        ),
        "GET /buckets/{id}/files/{hash}/content": lambda alice, _: ask(
            alice.bridge, "GET", f"{files}/{FILE}/content", None, {"x-token": content_token}
        ),
        "GET /usage": lambda alice, _: alice.ask("GET", "/usage"),
        "PULL": lambda _alice, _: pull(pointer),
        "DELETE /buckets/{id}/files/{hash}": lambda alice, _: alice.ask(
            "DELETE", f"{files}/{FILE}"
        ),
        "DELETE /buckets/{id}": lambda alice, id: alice.ask("DELETE", f"/buckets/{id}"),
        "PATCH /users/{email}": change_password,
        "POST /users/{email}/reset": request_reset,
        "PUT /users/{email}/reset": reset,
        "DELETE /users/{email}": remove_account,
    }


def test_statement_count_of_each_route_is_documented(alice: User, statements: list[str]) -> None:
    bucket, counts = alice.bucket(), {}
    for name, asking in requests(alice, bucket).items():
        statements.clear()
        answer = asking(alice, bucket)
        assert isinstance(answer, bytes) or answer.status < 300, name
        counts[name] = str(len(statements))
    assert counts == STATED


def test_page_has_every_route() -> None:
    assert STATED.keys() == {f"{route.method} {route.path}" for route in ROUTES} | {"PULL"}


def plans(bridge: Bridge, table: str, asking: Callable[[], Reply]) -> set[str]:
    """Return how SQLite finds the rows of *table* that *asking* makes the bridge select."""
    found: set[str] = set()

    def note(connection: sa.Connection, _cursor: object, sql: str, values: Any, *_: object) -> None:
        if sql.startswith("SELECT"):
            cursor: Any = connection.connection.cursor()
            rows = cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            found.update(
                text.replace("COVERING ", "")
                for *_, text in rows
                if f" {table} " in text or "TEMP" in text
            )

    engine = bridge._database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    assert asking().status in (200, 413)
    sa.event.remove(engine, "before_cursor_execute", note)
    return found


def test_query_for_files_reads_no_others_of_the_bucket(alice: User) -> None:
    bucket, query = alice.bucket(storage=len(DATA) / 10**9), partial(plans, alice.bridge, "files")
    assert alice.upload(bucket, DATA).status == 200
    pushing, files = alice.token(bucket, "PUSH"), f"/buckets/{bucket}/files"
    assert query(partial(alice.ask, "GET", files)) == {
        "SEARCH files USING INDEX ix_files_bucket (bucket=? AND rowid>?)"
    }
    assert query(partial(alice.ask, "GET", files, query="name=a.bin")) == {
        "SEARCH files USING INDEX ix_files_bucket_filename (bucket=? AND filename=? AND rowid>?)"
    }
    headers = upload_headers(pushing, len(DATA) - 1)
    assert query(partial(ask, alice.bridge, "PUT", files, form(DATA[1:]), headers)) == {
        "SEARCH files USING INDEX ix_files_bucket_size (bucket=? AND size=?)"
    }
