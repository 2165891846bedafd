"""Fixtures for all tests: a private PostgreSQL per test process, and a fresh database per test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.object_storage import S3Server
from tests.support.postgres import Administrator, PostgresServer, administered, fresh_database, running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start the PostgreSQL that all tests of this process share."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of the server's `postgres` database, as its superuser."""
    return postgres_server.url()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: PostgresServer) -> Iterator[Administrator]:
    """Run statements on the server from outside any test's event loop."""
    with administered(postgres_server) as admin:
        yield admin


@pytest.fixture
def database_url(postgres_server: PostgresServer, postgres_admin: Administrator) -> Iterator[str]:
    """Return the URL of a fresh database with all migrations; it is dropped after the test."""
    with fresh_database(postgres_server, postgres_admin) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Start the S3 server that all tests of this process share."""
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Have the library find the S3 server by the usual variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server
