"""Daily partitions of the tables that only grow: made ahead of time, dropped when their day is past retention."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import structlog

from millhand.core.ids import id_floor
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("partitions")

TABLES = ("job", "job_completed", "job_log", "job_stream")
DAYS_AHEAD = 3
_NAME = re.compile(r"(?P<table>[a-z_]+)_p(?P<day>\d{8})")


async def ensure(connection: Any, *, now: datetime | None = None) -> list[str]:
    """Make the partitions of yesterday to DAYS_AHEAD days from now; returns the names of the new ones.

    Yesterday's is there for hosts whose clocks are behind. Where another process is at it, leaves it to that one.
    """
    now = now or await connection.fetchval(SQL.database_time)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if not await connection.fetchval(SQL.try_lock):
        return []
    try:
        existing = {row["name"] for row in await connection.fetch(SQL.list_partitions, list(TABLES))}
        days = [today + timedelta(days=offset) for offset in range(-1, DAYS_AHEAD + 1)]
        missing = [(table, day) for day in days for table in TABLES if name(table, day) not in existing]
        return [name(table, day) for table, day in missing if await _create(connection, table, day)]
    finally:
        await connection.execute(SQL.unlock)


def name(table: str, day: datetime) -> str:
    """Return the name of a table's partition of a day."""
    return f"{table}_p{day:%Y%m%d}"


def bounds(day: datetime) -> tuple[str, str]:
    """Return the first id of a day and of the next one."""
    start = int(day.timestamp() * 1000)
    return str(id_floor(start)), str(id_floor(start + 86_400_000))


async def drop_before(connection: Any, cutoff: datetime) -> list[str]:
    """Drop the partitions of days that lie wholly before a time and hold nothing that ended after it or has not ended.

    Returns the names of those dropped. Days that must stay for some late job are left to batched deletes.
    """
    rows = await connection.fetch(SQL.list_partitions, list(TABLES))
    dropped: list[str] = []
    for day in sorted({day for row in rows if (day := _day(row["name"])) and day + timedelta(days=1) <= cutoff}):
        existing = {row["name"] for row in rows}
        names = [name(table, day) for table in TABLES if name(table, day) in existing]
        if not await _in_use(connection, day, cutoff) and await _drop(connection, day, cutoff, names):
            dropped += names
    return dropped


async def _drop(connection: Any, day: datetime, cutoff: datetime, names: list[str]) -> bool:
    """Look once more, now that nobody can write, and drop; False where the locks can't be had now, or it is in use."""
    try:
        async with connection.transaction():
            await connection.execute(SQL.wait_briefly)
            await connection.execute(SQL.lock_tables)
            if await _in_use(connection, day, cutoff):
                return False
            await connection.execute(f"drop table {', '.join(names)}")
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        log.warning("partition.postponed", partition=names[0], error=str(error))
        return False
    return True


async def _in_use(connection: Any, day: datetime, cutoff: datetime) -> bool:
    low, high = bounds(day)
    return bool(await connection.fetchval(SQL.is_in_use, low, high, cutoff))


def _day(partition: str) -> datetime | None:
    match = _NAME.fullmatch(partition)
    return match and datetime.strptime(match["day"], "%Y%m%d").replace(tzinfo=UTC)


async def _create(connection: Any, table: str, day: datetime) -> bool:
    """Make one partition; False where its rows are in the default partition already, or the lock can't be had now.

    Made apart and then attached, which locks the parent against other DDL only, and not against its readers and writers.
    """
    partition, (low, high) = name(table, day), bounds(day)
    try:
        async with connection.transaction():
            await connection.execute(SQL.wait_briefly)
            await connection.execute(f"create table {partition} (like {table} including all)")
            await connection.execute(
                f"alter table {table} attach partition {partition} for values from ('{low}') to ('{high}')"
            )
    except (asyncpg.CheckViolationError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        log.warning("partition.postponed", partition=partition, error=str(error))
        return False
    return True
