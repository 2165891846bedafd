"""Runtimes for contract tests, started once per module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from millhand.runtimes.registry import Runtimes
from tests.support.postgres import PostgresServer
from tests.support.runs import cache_dir


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def runtimes(postgres_server: PostgresServer) -> AsyncIterator[Runtimes]:
    """Return the runtimes of a worker host with two workers; the tests' PostgreSQL is its datatable."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    runtimes = Runtimes(cache_dir=cache_dir(), n_workers=2, datatable_url=postgres_server.url(tcp=True))
    await runtimes.start()
    yield runtimes
    await runtimes.close()
