"""Fixtures of the system tests: a database of each test's own, parts to start and kill, a witness."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from millhand.duties.run import Duties, DutySettings
from millhand.store.pool import Database
from tests.support.postgres import PostgresServer
from tests.system.stage import Stage
from tests.system.witness import Witness


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Return a connection pool of the tester."""
    async with Database(database_url, application_name="test", max_size=4) as opened:
        yield opened


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """Return a PostgreSQL that may be killed: what it has committed, it keeps."""
    server = PostgresServer(synchronous_commit="on")
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def stage(database_url: str, tmp_path: Path) -> Iterator[Stage]:
    """Return what starts parts over the test's database. Nothing that they started may be left at the end."""
    stage = Stage(database_url, tmp_path)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    """Return a witness of runs."""
    async with Witness() as witness:
        yield witness


@pytest.fixture
async def duties(database: Database) -> AsyncIterator[None]:
    """Do what the leader among the servers does, more often than it."""
    async with Duties(database, DutySettings(rescue_every_s=0.2)):
        yield
