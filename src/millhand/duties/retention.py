"""The duties of time: partitions for the coming days, and an end to what is past retention."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from millhand.store import partitions, retention
from millhand.store.pool import Database

log = structlog.get_logger(__name__)

BATCH = 1000


async def make_partitions(database: Database) -> list[str]:
    """Make the partitions of the coming days."""
    async with database.acquire() as connection:
        return await partitions.ensure(connection)


async def drop_old_jobs(
    database: Database, *, retention_s: float, own: datetime | None = None, now: datetime | None = None
) -> int:
    """Drop whole days past retention, then delete what is left of them; returns how many jobs were deleted singly.

    `own` is the time by this machine's clock, `now` by the database's. The one that is behind counts.
    """
    async with database.acquire() as connection:
        cutoff = await retention.cutoff(connection, retention_s, own=own or datetime.now(UTC), now=now)
        if dropped := await partitions.drop_before(connection, cutoff):
            log.info("partitions.dropped", partitions=dropped)
    n_deleted = 0
    while True:
        batch = await retention.delete_jobs(database, cutoff, limit=BATCH)
        n_deleted += batch
        if batch < BATCH:
            return n_deleted
