"""What store tests need: an open database, jobs to push, hosts that hold leases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from millhand.core.ids import new_id
from millhand.core.job import JobKind, JobStatus, NewJob, Report
from millhand.core.worker import HostInfo
from millhand.store import queue, workers
from millhand.store.pool import Database
from tests.support.postgres import Administrator, PostgresServer, administered, fresh_database, oldest, running

# Each test of the store is run on the PostgreSQL that Millhand brings along, and on the oldest it works with.


@pytest.fixture(scope="session", params=["newest", "oldest"])
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with running(oldest() if request.param == "oldest" else None) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.url()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: PostgresServer) -> Iterator[Administrator]:
    with administered(postgres_server) as admin:
        yield admin


@pytest.fixture
def database_url(postgres_server: PostgresServer, postgres_admin: Administrator) -> Iterator[str]:
    with fresh_database(postgres_server, postgres_admin) as url:
        yield url


@pytest.fixture
async def database(database_url):
    async with Database(database_url, application_name="test", max_size=4) as database:
        yield database


def new_job(**changes) -> NewJob:
    """Return a no-op job of workspace `main` with tag `t`, changed as asked."""
    fields = {
        "id": new_id(),
        "workspace_id": "main",
        "kind": JobKind.NOOP,
        "tag": "t",
        "created_by": "admin",
        "permissioned_as": "u/admin",
        "email": "admin@millhand.local",
    }
    return NewJob(**{**fields, **changes})


def new_host(**changes) -> HostInfo:
    """Return a worker host that serves tag `t`."""
    fields = {
        "incarnation": uuid4(),
        "group": "default",
        "hostname": "host",
        "ip": "127.0.0.1",
        "version": "0",
        "started_at": datetime.now(UTC),
        "tags": ("t",),
        "isolation": "none",
        "vcpus": 100_000,
        "memory": 1 << 30,
    }
    return HostInfo(**{**fields, **changes})


class Host:
    """A registered worker host with workers w0, w1, …, as short to use as tests want it."""

    def __init__(self, database: Database, info: HostInfo, n_workers: int = 100) -> None:
        self.database, self.info = database, info
        self.workers = [f"{info.incarnation.hex[:8]}-w{i}" for i in range(n_workers)]

    async def register(self, now=None) -> Host:
        await workers.register(self.database, self.info, self.workers, now=now)
        return self

    async def claim(self, n=1, *, tags=("t",), weights=None, now=None):
        return await queue.claim(self.database, self.workers[:n], tags, self.info.incarnation, weights=weights, now=now)


@pytest.fixture
async def host(database) -> Host:
    return await Host(database, new_host()).register()


@pytest.fixture
async def other_host(database) -> Host:
    return await Host(database, new_host()).register()


def report(job, **changes) -> Report:
    """Return the report of a claimed job's success."""
    fields = {
        "job_id": job.id,
        "attempt": job.attempt,
        "worker": job.worker,
        "status": JobStatus.SUCCESS,
        "result": b'{"a": 1}',
        "duration_ms": 5,
    }
    return Report(**{**fields, **changes})
