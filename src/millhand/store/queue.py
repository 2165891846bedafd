"""The queue from push to claim: each function is one statement of `sql/queue.sql`.

`connection` is a Database or one of its connections. `now` is for tests; production leaves time to the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from millhand.core.errors import BadRequestError, ConflictError, TooLargeError
from millhand.core.job import MAX_JSON_BYTES, ClaimedJob, JobKind, NewJob
from millhand.core.script import Language
from millhand.store.sql_files import load

SQL = load("queue")

# What PostgreSQL, or the driver before it, says of a value that no column can hold.
DATA_ERRORS = (asyncpg.DataError, asyncpg.exceptions.ProgramLimitExceededError, UnicodeError, ValueError)
MAX_STATEMENT_BYTES = 256 * 1024 * 1024  # PostgreSQL takes messages up to 1 GB; copies of it are made on the way
PROMOTE_AT_ONCE = 1000
COUNT_AHEAD_BOUND = 10_000
_CLAIM_TRIES = 3
_SPARE_CANDIDATES = 64  # looked at beyond the number of workers, because other hosts may be taking the first ones

_KINDS = {kind.value: kind for kind in JobKind}
_LANGUAGES: dict[str | None, Language | None] = {None: None, **{language.value: language for language in Language}}


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the jobs that wait for their time."""

    n_promoted: int
    tags: tuple[str, ...]  # that have new work
    next_due_s: float | None  # until the next one is due; None where none waits


class TagCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a tag have not ended."""

    tag: str
    n_queued: int
    n_running: int
    n_scheduled: int
    n_suspended: int
    oldest_s: float | None  # how long the first in the queue has been due


async def push(
    connection: Any, jobs: Sequence[NewJob], *, nudge: bool = False, now: datetime | None = None
) -> list[str]:
    """Store new jobs, all or none; returns the tags that have work at once, to be nudged after the commit.

    With `nudge` the commit itself nudges. Commits that nudge wait for each other, so that is for who pushes alone.
    Raises ConflictError where an id exists, BadRequestError for text no database holds, TooLargeError.
    """
    for job in jobs:
        if len(job.args) > MAX_JSON_BYTES:
            raise TooLargeError(
                f"the arguments are {len(job.args):,} bytes long; at most {MAX_JSON_BYTES:,} are allowed"
            )
    try:
        rows = await connection.fetch(SQL.push_jobs, *_columns(jobs), now, nudge)
    except asyncpg.UniqueViolationError:
        raise ConflictError("a job with this id exists already; leave the id out, or take a new one") from None
    except DATA_ERRORS as error:
        raise BadRequestError(f"the database can't store this job: {error}") from None
    return [row[0] for row in rows]


def column(values: list[Any]) -> list[Any] | None:
    """Return an array parameter; null for one of nulls only, which `unnest` fills up and costs nothing to encode."""
    return None if values.count(None) == len(values) else values


def _columns(jobs: Sequence[NewJob]) -> list[list[Any] | None]:
    """Turn jobs into one array per column, in the order of `push_jobs`."""
    columns: list[list[Any]] = [
        [job.id for job in jobs],
        [job.workspace_id for job in jobs],
        [job.kind for job in jobs],
        [job.tag for job in jobs],
        [job.created_by for job in jobs],
        [job.permissioned_as for job in jobs],
        [job.email for job in jobs],
        [job.args for job in jobs],
        [job.runnable_path for job in jobs],
        [job.runnable_hash for job in jobs],
        [job.raw_code for job in jobs],
        [job.raw_lock for job in jobs],
        [job.language for job in jobs],
        [job.entrypoint for job in jobs],
        [job.priority for job in jobs],
        [job.scheduled_for for job in jobs],
        [job.timeout_s for job in jobs],
        [job.cache_ttl_s for job in jobs],
        [job.parent_job for job in jobs],
        [job.root_job for job in jobs],
        [job.flow_step_id for job in jobs],
        [job.trigger for job in jobs],
        [job.trigger_kind for job in jobs],
        [job.visible_to_owner for job in jobs],
        [job.awaited for job in jobs],
        [job.delete_after_use for job in jobs],
        [job.restart_unless_cancelled for job in jobs],
    ]
    return [column(values) for values in columns]


async def claim(
    connection: Any,
    workers: Sequence[str],
    tags: Sequence[str],
    incarnation: UUID,
    *,
    weights: Sequence[int] | None = None,
    now: datetime | None = None,
) -> list[ClaimedJob]:
    """Mark up to one queued job per worker as running and return them, best first.

    Where so many candidates were locked or taken by other hosts meanwhile that some workers go without, looks again,
    further down the queue.
    """
    claimed: list[ClaimedJob] = []
    n_spare = _SPARE_CANDIDATES
    for _ in range(_CLAIM_TRIES):
        free = workers[len(claimed) :]
        n_looked_at = len(free) + n_spare
        rows = await connection.fetch(SQL.claim_jobs, free, tags, incarnation, weights, n_looked_at, now)
        claimed += [_claimed(row) for row in rows if row[0] is not None]
        if len(claimed) == len(workers) or rows[0]["n_candidates"] < n_looked_at:
            break
        n_spare = 4 * n_looked_at
    return claimed


def _claimed(row: Any) -> ClaimedJob:
    """Build a ClaimedJob from the columns of `claim_jobs` by position: by name costs twice as much."""
    return ClaimedJob(
        id=row[0],
        attempt=row[1],
        worker=row[2],
        workspace_id=row[3],
        kind=_KINDS[row[4]],
        tag=row[5],
        args=row[6],
        created_by=row[7],
        permissioned_as=row[8],
        email=row[9],
        scheduled_for=row[10],
        started_at=row[11],
        runnable_path=row[12],
        runnable_hash=row[13],
        raw_code=row[14],
        raw_lock=row[15],
        language=_LANGUAGES[row[16]],
        entrypoint=row[17],
        priority=row[18],
        timeout_s=row[19],
        cache_ttl_s=row[20],
        parent_job=row[21],
        root_job=row[22],
        flow_step_id=row[23],
        trigger=row[24],
        awaited=row[25],
        canceled_by=row[26],
        canceled_reason=row[27],
        delete_after_use=row[28],
        restart_unless_cancelled=row[29],
    )


async def promote_due(connection: Any, *, now: datetime | None = None) -> Due:
    """Queue jobs whose time has come, a bounded number at once; where more are due, `next_due_s` is 0."""
    row = await connection.fetchrow(SQL.promote_due, PROMOTE_AT_ONCE, now)
    return Due(
        n_promoted=row["n_promoted"],
        tags=tuple(row["tags"] or ()),
        next_due_s=0.0 if row["n_promoted"] == PROMOTE_AT_ONCE else row["next_due_s"],
    )


async def run_now(connection: Any, workspace_id: str, job_id: UUID, *, now: datetime | None = None) -> str | None:
    """Queue a job that waits for its time; returns its tag, or None where it does not wait."""
    return await connection.fetchval(SQL.run_now, workspace_id, job_id, now)  # type: ignore[no-any-return]


async def release(connection: Any, jobs: Iterable[tuple[UUID, int]], incarnation: UUID) -> dict[UUID, str]:
    """Put running jobs, named by id and attempt, back in the queue; returns those that were held, with their tags."""
    pairs = list(jobs)
    rows = await connection.fetch(
        SQL.release_jobs, [job_id for job_id, _ in pairs], [attempt for _, attempt in pairs], incarnation
    )
    return {row["id"]: row["tag"] for row in rows}


async def set_progress(connection: Any, job_id: UUID, percent: int, incarnation: UUID) -> bool:
    """Record how far a running job is, 0 to 100; returns whether somebody waits to hear it."""
    return bool(await connection.fetchval(SQL.set_progress, job_id, max(0, min(percent, 100)), incarnation))


async def counts(connection: Any, *, workspace_id: str | None = None, now: datetime | None = None) -> list[TagCount]:
    """Count the jobs that have not ended, by tag, of one workspace or of all."""
    return [TagCount(**row) for row in await connection.fetch(SQL.count_by_tag, workspace_id, now)]


async def position(connection: Any, job_id: UUID) -> int:
    """Return how many jobs of its tag go before a queued job, counted up to COUNT_AHEAD_BOUND."""
    return await connection.fetchval(SQL.count_ahead, job_id, COUNT_AHEAD_BOUND)  # type: ignore[no-any-return]
