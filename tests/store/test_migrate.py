"""Migrations, the schema check and what every instance is given at first."""

import asyncio

import pytest

from millhand.core.errors import SchemaVersionError
from millhand.store.migrate import check_schema, migrate, migrations, setting
from millhand.store.pool import Database


@pytest.fixture
def empty_url(postgres_server, postgres_admin):
    postgres_admin.execute("create database empty")
    yield postgres_server.url("empty")
    postgres_admin.execute("drop database empty with (force)")


async def test_many_starters_migrate_at_once(empty_url):
    """Processes that migrate at the same time apply each migration once, and all of them succeed."""
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(4)))

    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


async def test_check_schema_names_the_command(empty_url):
    """An older or newer schema is refused with the command that mends it."""
    async with Database(empty_url, application_name="test") as database:
        with pytest.raises(SchemaVersionError, match="run `millhand migrate`"):
            await check_schema(database)
        await migrate(empty_url)
        await check_schema(database)
        await database.execute("insert into millhand_migration values (9999, 'from_the_future')")
        with pytest.raises(SchemaVersionError, match="newer than this release"):
            await check_schema(database)
        with pytest.raises(SchemaVersionError, match="at least as new"):
            await migrate(empty_url)


async def test_secret_is_made_once(database_url):
    """The secret that signs job tokens survives another migrate."""
    async with Database(database_url, application_name="test") as database:
        before = await setting(database, "jwt_secret")
        await migrate(database_url)

        assert len(before) > 40
        assert await setting(database, "jwt_secret") == before
        assert await setting(database, "no_such_setting") is None
