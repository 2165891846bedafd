"""Fixtures for all tests: a private PostgreSQL per test process, and a fresh database per test that asks for one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from millhand.store.migrate import migrate
from tests.support.object_storage import S3Server
from tests.support.postgres import Administrator, PostgresServer

TEMPLATE = "millhand_template"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start the PostgreSQL that all tests of this process share."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of the server's `postgres` database, as its superuser."""
    return postgres_server.url()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: PostgresServer) -> Iterator[Administrator]:
    """Run statements on the server from outside any test's event loop; a database with all migrations is its template."""
    admin = Administrator(postgres_server.url())
    try:
        admin.execute(f"create database {TEMPLATE}")
        admin.run(migrate(postgres_server.url(TEMPLATE)))
        yield admin
    finally:
        admin.close()


@pytest.fixture
def database_url(postgres_server: PostgresServer, postgres_admin: Administrator) -> Iterator[str]:
    """Return the URL of a fresh database with all migrations; it is dropped after the test."""
    name = f"test_{next(_numbers)}"
    postgres_admin.execute(f"create database {name} template {TEMPLATE}")
    yield postgres_server.url(name)
    postgres_admin.execute(f"drop database {name} with (force)")


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
