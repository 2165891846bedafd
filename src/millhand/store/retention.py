"""What goes when its time is over: jobs past retention that no partition took along, expired tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from millhand.core.ids import id_floor
from millhand.store.logs import doom
from millhand.store.pool import Database
from millhand.store.sql_files import load

SQL = load("retention")


async def cutoff(connection: Any, retention_s: float, *, own: datetime, now: datetime | None = None) -> datetime:
    """Return before when jobs are past retention, by the database's clock or by `own`, whichever is behind."""
    return await connection.fetchval(SQL.cutoff, retention_s, own, now)  # type: ignore[no-any-return]


async def delete_jobs(database: Database, cutoff: datetime, *, limit: int = 1000) -> int:
    """Delete jobs that ended before a time, with arguments, results, logs and streams; returns how many."""
    first = id_floor(int(cutoff.timestamp() * 1000))
    async with database.transaction() as connection:
        rows = await connection.fetch(SQL.delete_jobs, cutoff, limit, first)
        await doom(connection, [row["id"] for row in rows])
    return len(rows)


async def delete_expired_tokens(connection: Any, *, limit: int = 1000, now: datetime | None = None) -> int:
    """Delete tokens past their time; returns how many."""
    return int((await connection.execute(SQL.delete_expired_tokens, limit, now)).rsplit(" ", 1)[-1])
