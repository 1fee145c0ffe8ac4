"""PostgreSQL and an S3 store under the bridge, as `backends` wants them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import postgres
import pytest
import seaweedfs
import sqlalchemy as sa
from backends import OBJECT, Backend
from shared import run_folder, shared

from pymdc.bridge import Bridge
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.servers import open_postgres

if TYPE_CHECKING:  # not installed everywhere
    from obstore.store import S3Store


class Servers:
    """A PostgreSQL and a SeaweedFS of all tests; this worker has a database of its own."""

    def __init__(self, database: str, environment: Mapping[str, str]) -> None:
        self.database = database
        self.environment = environment
        self.engine = sa.create_engine(database, pool_size=1)
        self.used = 0


class Distributed(Backend):
    """PostgreSQL and an S3 store: the worker's database, emptied, and a new prefix."""

    knows_what_is_free = False

    def __init__(self, data: Path, servers: Servers) -> None:
        super().__init__(data, servers.engine)
        servers.used += 1
        name = servers.database.rpartition("/")[2]
        prefix = f"{name}/{servers.used}"
        self.settings = {"database": servers.database, "store": f"s3://{seaweedfs.BUCKET}/{prefix}"}
        self._environment = servers.environment
        self._prefix = prefix
        self.execute(postgres.DELETE_ROWS)

    def bridge(self, **settings: Any) -> Bridge:
        return super().bridge(**self.settings, **settings)

    def options(self) -> list[str]:
        elsewhere = (f"--{name}={url}" for name, url in self.settings.items())
        return [*super().options(), *elsewhere]

    def data_of(self, bridge: str) -> Path:
        return self.data / bridge

    def open_database(self) -> Database:
        return open_postgres(self.settings["database"], None)

    def objects(self) -> list[str]:
        return sorted(self._paths())

    def read(self, name: str) -> bytes:
        return bytes(self._store().get(self._paths()[name]).bytes())

    def write(self, name: str, content: bytes) -> None:
        self._store().put(self._paths().get(name, name), content)

    def remove(self, name: str) -> None:
        self._store().delete(self._paths()[name])

    def _paths(self) -> dict[str, str]:
        """Return the path of each object by its name."""
        listed = [one["path"] for batch in self._store().list() for one in batch]
        paths = {path.rpartition("/")[2]: path for path in listed}
        return {name: path for name, path in paths.items() if OBJECT.fullmatch(name)}

    def _store(self) -> S3Store:
        from obstore.store import S3Store

        return S3Store(
            seaweedfs.BUCKET,
            prefix=self._prefix,
            endpoint=self._environment["AWS_ENDPOINT_URL"],
            region=self._environment["AWS_REGION"],
            access_key_id=self._environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=self._environment["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )


@contextmanager
def servers(factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Run the servers that all workers share, or skip the test."""
    seaweedfs.skip_if_unavailable()
    with postgres_server(factory) as server:
        with shared(run_folder(factory) / "seaweedfs", run_seaweedfs) as environment:
            running = Servers(server.new_database(), json.loads(environment))
            yield running
            running.engine.dispose()


@contextmanager
def postgres_server(factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    """Run the PostgreSQL that all workers share, or skip the test."""
    postgres.skip_if_unavailable()
    with shared(run_folder(factory) / "postgres", _postgres) as port:
        yield postgres.Server(int(port))


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    with postgres.postgres(folder) as server:
        yield str(server.port)


@contextmanager
def run_seaweedfs(folder: Path) -> Iterator[str]:
    """Run a SeaweedFS in *folder*, for `shared`; yield its environment, as JSON."""
    with seaweedfs.seaweedfs(folder) as store:
        yield json.dumps(store.environment)
