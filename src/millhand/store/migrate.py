"""Forward-only migrations: numbered files, each applied once, in order, under one advisory lock."""

from __future__ import annotations

import re
import secrets
from importlib import resources
from typing import Any

import asyncpg
import msgspec
import structlog

from millhand.core.errors import SchemaVersionError
from millhand.store import partitions
from millhand.store.pool import Database
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("migrate")

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the schema."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return all migrations of this release, in order."""
    found = [
        Migration(version=int(match["version"]), name=match["name"], sql=file.read_text("utf-8"))
        for file in resources.files("millhand.store").joinpath("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(url: str) -> list[str]:
    """Bring the schema up to this release and make what it needs to run; returns the names of the migrations applied.

    Safe to run from many processes at once. Raises SchemaVersionError where the schema is newer than this release.
    """
    database = Database(url, application_name="millhand migrate")
    connection = await database.connect(purpose="")
    try:
        await connection.execute(SQL.lock_schema)
        applied = await _apply_pending(connection)
        await bootstrap(connection)
        return applied
    finally:
        await connection.close()


async def _apply_pending(connection: Any) -> list[str]:
    await connection.execute(SQL.create_version_table)
    known = migrations()
    current = await _version(connection)
    if current > known[-1].version:
        raise _newer(current, known[-1].version)
    pending = [migration for migration in known if migration.version > current]
    for migration in pending:
        await _apply(connection, migration)
    return [migration.name for migration in pending]


async def _apply(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(SQL.insert_version, migration.version, migration.name)
        await connection.execute(SQL.bound_lock_waits)
        await connection.execute(migration.sql)
    log.info("schema.migrated", version=migration.version, name=migration.name)


async def check_schema(database: Database) -> None:
    """Raise SchemaVersionError, naming the command that mends it, unless the schema is exactly this release's."""
    ours = migrations()[-1].version
    try:
        current = await _version(database)
    except asyncpg.UndefinedTableError:
        current = 0
    if current > ours:
        raise _newer(current, ours)
    if current < ours:
        raise SchemaVersionError(
            f"the database schema is at version {current}, this release needs {ours}; run `millhand migrate`"
        )


async def bootstrap(connection: Any) -> None:
    """Make what every instance needs: the secret that signs job tokens, and the partitions of the coming days."""
    await connection.execute(SQL.insert_setting, "jwt_secret", msgspec.json.encode(secrets.token_urlsafe(48)))
    await partitions.ensure(connection)


async def setting(database: Database, name: str) -> Any:
    """Return an instance setting, decoded, or None."""
    value = await database.fetchval(SQL.read_setting, name)
    return None if value is None else msgspec.json.decode(value)


async def _version(connection: Any) -> int:
    return await connection.fetchval(SQL.read_version) or 0


def _newer(current: int, ours: int) -> SchemaVersionError:
    return SchemaVersionError(
        f"the database schema is at version {current}, newer than this release's {ours}; "
        "run a release of Millhand at least as new as the one that ran `millhand migrate`"
    )
