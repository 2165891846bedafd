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
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
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
