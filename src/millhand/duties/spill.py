"""The duties of object storage: large logs go there, and what nobody needs any more is deleted there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from millhand.core.objects import Objects
from millhand.core.spill import Border, Piece, pieces
from millhand.store import log_objects
from millhand.store.pool import Database

log = structlog.get_logger(__name__)

BORDERS = 64  # one look finds work for at most 16 full objects, 64 MiB of ASCII
AT_ONCE = 4  # uploads, each with its text in memory: most of an upload is waiting
BATCH = 1000  # objects in one request to delete


async def spill_logs(database: Database, objects: Objects) -> int:
    """Move what is large of all logs to object storage, a bounded batch at a time; returns how many objects it made.

    Raises ObjectStoreError where object storage is away: what did not get there stays in the database until next time.
    """
    n_objects = 0
    while True:
        found = await log_objects.borders(database, limit=BORDERS)
        sizes = await _spill(database, objects, found)
        if any(sizes):
            log.info("logs.spilled", n_objects=len(sizes) - sizes.count(0), n_bytes=sum(sizes))
        n_objects += len(sizes) - sizes.count(0)
        if len(found) < BORDERS or not any(sizes):
            return n_objects


async def _spill(database: Database, objects: Objects, found: list[Border]) -> list[int]:
    """Move what ends at these borders; returns the bytes of each. At the first failure it stops."""
    places, sizes = asyncio.Semaphore(AT_ONCE), list[int]()

    async def move(piece: Piece) -> None:
        async with places:
            sizes.append(await log_objects.spill(database, objects, piece))

    try:
        async with asyncio.TaskGroup() as moving:
            for piece in pieces(found):
                moving.create_task(move(piece))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return sizes


async def delete_doomed_objects(
    database: Database, objects: Objects, *, retention_s: float, now: datetime | None = None
) -> int:
    """Delete the objects of erased and forgotten logs, in bounded batches; returns how many."""
    cutoff = (now or datetime.now(UTC)) - timedelta(seconds=retention_s)
    while await log_objects.doom_left_behind(database, cutoff, limit=BATCH) == BATCH:
        pass
    n_deleted = 0
    while True:
        batch = await log_objects.delete_doomed(database, objects, limit=BATCH, now=now)
        n_deleted += batch
        if batch < BATCH:
            if n_deleted:
                log.info("objects.deleted", n_objects=n_deleted)
            return n_deleted
