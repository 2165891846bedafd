"""Rescue: jobs whose worker host is gone go back to the queue, or end, with the cause in their log."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from millhand.core.job import MAX_ATTEMPTS_LOST, LogChunk, error_result
from millhand.store import logs
from millhand.store.pool import Database
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("rescue")

RESCUE_AT_ONCE = 1000


class Rescued(msgspec.Struct, frozen=True, kw_only=True):
    """What a rescue did."""

    requeued: tuple[UUID, ...] = ()
    ended: tuple[UUID, ...] = ()  # given up, or canceled before their worker was lost
    awaited: tuple[UUID, ...] = ()  # of those ended: somebody waits to hear it
    tags: tuple[str, ...] = ()  # that have work again

    @property
    def n_jobs(self) -> int:
        """Return how many jobs were taken from lost hosts."""
        return len(self.requeued) + len(self.ended)


async def rescue(
    database: Database,
    *,
    restart: bool = True,
    max_lost: int = MAX_ATTEMPTS_LOST,
    limit: int = RESCUE_AT_ONCE,
    now: datetime | None = None,
) -> Rescued:
    """Take jobs from hosts that have stopped pinging; at most `max_lost` times each (never, without `restart`).

    What happened is written to each job's log in the same transaction.
    """
    async with database.transaction() as connection:
        if pulled_back := await connection.fetch(SQL.pull_back_leases, now):
            await connection.execute(SQL.pull_back_starts, now)
            log.warning("leases.pulled_back", n_hosts=len(pulled_back), cause="the database's clock was set back")
        rows = await connection.fetch(
            SQL.rescue_jobs, max_lost, restart, _given_up(max_lost, restart=restart), limit, now
        )
        await logs.append(connection, [LogChunk(job_id=row["id"], text=_cause(row, max_lost)) for row in rows])
    requeued = [row for row in rows if row["fate"] == "requeued"]
    ended = [row for row in rows if row["fate"] != "requeued"]
    return Rescued(
        requeued=tuple(row["id"] for row in requeued),
        ended=tuple(row["id"] for row in ended),
        awaited=tuple(row["id"] for row in ended if row["awaited"]),
        tags=tuple({row["tag"] for row in requeued}),
    )


def _given_up(max_lost: int, *, restart: bool) -> bytes:
    if not restart:
        return error_result(
            "WorkerLost", "the worker was lost while it ran this job, and lost jobs are not restarted here"
        )
    return error_result(
        "WorkerLost",
        f"the worker was lost while it ran this job, for the {_ordinal(max_lost + 1)} time; it is not tried again. "
        "Does the job end its worker, for instance by using up its memory?",
    )


def _cause(row: Any, max_lost: int) -> str:
    """Tell, in a line of the job's log, what was done with it and why."""
    head = f"worker {row['worker']} was lost: its host has stopped pinging; "
    if row["fate"] == "canceled":
        return head + "the job was canceled before\n"
    if row["fate"] == "failed":
        return head + "the job is given up\n"
    return head + f"the job goes back to the queue (rescue {row['n_lost']} of {max_lost})\n"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third", 4: "fourth"}.get(number, f"{number}th")
