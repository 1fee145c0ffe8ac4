from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import compress
from operator import not_
from pathlib import Path

import pytest
import seaweedfs
from backends import Backend, Embedded
from distributed import Distributed, Servers, postgres_server, run_seaweedfs, servers
from plain_client import Clock, Count, Rows, User
from postgres import Postgres, Server
from postgres import postgres as run_postgres
from processes import MINUTE
from shared import run_folder, shared

from pymdc.bridge import Bridge
from pymdc.bridge.storage.objects import new_upload
from pymdc.bridge.storage.s3_store import S3Store

SHARD_SIZE = 1000
# The fixtures that start a server, or need one that is started for all tests.
SERVERS = {"distributed_servers", "own_postgres", "own_seaweedfs", "postgres", "s3_environment"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        of_folder = "data" in metafunc.fixturenames
        only_distributed = metafunc.config.getoption("--distributed")
        kinds = [] if only_distributed else ["embedded"]
        marked = metafunc.definition.get_closest_marker("storage")
        if (marked or only_distributed) and not of_folder:
            kinds.append("distributed")
        metafunc.parametrize("backend", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests that need a server if that is wanted, and else the others."""
    if config.getoption("--distributed"):
        is_chosen = [_needs_servers(item) or _is_on_servers(item) for item in items]
    else:
        is_chosen = [not _needs_servers(item) for item in items]
    config.hook.pytest_deselected(items=[*compress(items, map(not_, is_chosen))])
    items[:] = compress(items, is_chosen)


def _needs_servers(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("distributed") is not None
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return marked or not SERVERS.isdisjoint(fixtures)


def _is_on_servers(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and (
        hasattr(item, "callspec") and item.callspec.params.get("backend") == "distributed"
    )


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine as well, removals are over when answered, and tests keep the house."""
    monkeypatch.setattr("pymdc.bridge.serving.app.REMOVAL_SECONDS", MINUTE)
    monkeypatch.setattr("pymdc.bridge.housekeeping.FIRST_LOOK_SECONDS", MINUTE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def distributed_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the variables of the SeaweedFS of all tests."""
    seaweedfs.skip_if_unavailable()
    folder = run_folder(tmp_path_factory) / "seaweedfs"
    with shared(folder, run_seaweedfs) as environment:
        yield json.loads(environment)


@pytest.fixture
def s3(s3_environment: dict[str, str]) -> S3Store:
    """Give an S3 store without objects."""
    pytest.importorskip("obstore")
    return S3Store(f"s3://{seaweedfs.BUCKET}/a/{new_upload()}", s3_environment)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give the PostgreSQL of all tests."""
    with postgres_server(tmp_path_factory) as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """Give a PostgreSQL that the test may kill."""
    with run_postgres(tmp_path, fsync=True) as server:
        yield server


@pytest.fixture
def own_seaweedfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[seaweedfs.SeaweedFS]:
    """Give a SeaweedFS that the test may kill; the variables that name it are set."""
    pytest.importorskip("obstore")
    monkeypatch.setattr("pymdc.bridge.storage.s3_store.STORE_RETRY_SECONDS", 0.2)
    with seaweedfs.seaweedfs(tmp_path / "weed") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def new_url(postgres: Server) -> str:
    """Give the URL of a new database in PostgreSQL, without tables."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def url_of_worker(postgres: Server) -> str:
    return postgres.new_database()


@pytest.fixture
def url(postgres: Server, url_of_worker: str) -> str:
    """Give the URL of a database in PostgreSQL without rows, and perhaps without tables yet."""
    postgres.delete_rows(url_of_worker)
    return url_of_worker


@pytest.fixture
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """Give the database and the store of the test."""
    if request.param == "embedded":
        return Embedded(tmp_path / "data")
    running: Servers = request.getfixturevalue("distributed_servers")
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return Distributed(tmp_path / "data", running)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give the folder of the embedded back end, for tests of what is in it."""
    return tmp_path / "data"


@pytest.fixture
def bridge(backend: Backend, clock: Clock) -> Iterator[Bridge]:
    with backend.bridge(shard_size=SHARD_SIZE, clock=clock) as running:
        yield running


@pytest.fixture
def alice(bridge: Bridge) -> User:
    return User(bridge, "alice")


@pytest.fixture
def bucket(alice: User) -> str:
    return alice.bucket()


@pytest.fixture
def objects(backend: Backend) -> Count:
    """Count the objects in the store, half-written ones included."""
    return lambda: len(backend.objects())


@pytest.fixture
def rows(backend: Backend) -> Rows:
    """Count the rows of a table."""
    return backend.rows
