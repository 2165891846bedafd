"""Jobs as people see them: one by id, lists by filter, counts, and why one waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from millhand.core.job import JobState, JobStatus
from millhand.core.why import AHEAD_BOUND, Facts
from millhand.store.logs import doom
from millhand.store.pool import Database
from millhand.store.sql_files import load

SQL = load("jobs")

_encode = msgspec.json.Encoder().encode


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its queue row, while it has one, or its record, once it has ended."""

    id: UUID
    workspace_id: str
    kind: str
    created_at: datetime
    created_by: str
    permissioned_as: str
    email: str
    tag: str
    priority: int
    scheduled_for: datetime
    runnable_path: str | None
    runnable_hash: int | None
    raw_code: str | None
    raw_lock: str | None
    language: str | None
    timeout_s: int | None
    parent_job: UUID | None
    root_job: UUID | None
    flow_step_id: str | None
    trigger: str | None
    trigger_kind: str | None
    visible_to_owner: bool
    args: bytes | None
    state: JobState | None  # None: it has ended
    progress: int | None
    worker: str | None
    started_at: datetime | None
    attempt: int | None
    memory_peak_kb: int | None
    canceled_by: str | None
    canceled_reason: str | None
    status: JobStatus | None  # None: it has not ended
    completed_at: datetime | None
    duration_ms: int | None
    labels: tuple[str, ...] | None
    deleted: bool
    result: bytes | None


class JobFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs a list shows; None means all. Texts are LIKE patterns where a comment says so."""

    created_by: list[str] | None = None  # patterns
    not_created_by: list[str] | None = None  # patterns
    label: list[str] | None = None  # patterns
    not_label: list[str] | None = None  # patterns
    worker: list[str] | None = None  # patterns
    not_worker: list[str] | None = None  # patterns
    tag: list[str] | None = None  # patterns
    not_tag: list[str] | None = None  # patterns
    kinds: list[str] | None = None
    not_kinds: list[str] | None = None
    trigger_kinds: list[str] | None = None
    trigger: str | None = None
    path_start: str | None = None
    script_hash: int | None = None
    started_before: datetime | None = None
    started_after: datetime | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None
    completed_before: datetime | None = None
    completed_after: datetime | None = None
    running: bool | None = None
    suspended: bool | None = None
    due: bool | None = None  # its time has come
    statuses: list[str] | None = None
    is_flow_step: bool | None = None
    has_parent: bool | None = None
    scheduled: bool | None = None  # made by a schedule
    args: msgspec.Raw | None = None  # a JSON object that the arguments contain
    result: msgspec.Raw | None = None  # JSON that the result contains


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list."""

    limit: int
    offset: int = 0
    before: UUID | None = None  # only jobs made before this one
    oldest_first: bool = False


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands, for somebody who follows it."""

    state: JobState | None
    awaited: bool
    progress: int | None
    memory_peak_kb: int | None
    status: JobStatus | None
    started: bool

    @property
    def running(self) -> bool:
        """Tell whether a worker holds it."""
        return self.state is JobState.RUNNING

    @property
    def completed(self) -> bool:
        """Tell whether it has ended."""
        return self.status is not None


class QueueSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs wait."""

    n_waiting: int
    n_suspended: int


async def get(
    connection: Any,
    workspace_id: str,
    job_id: UUID,
    *,
    with_args: bool = True,
    with_code: bool = True,
    with_result: bool = True,
) -> JobRecord | None:
    """Return one job."""
    row = await connection.fetchrow(SQL.get_job, workspace_id, job_id, with_args, with_code, with_result)
    return row and _record(row)


async def find(
    database: Database,
    wanted: JobFilter,
    page: Page,
    *,
    workspace_id: str | None,
    path: str | None = None,
    parent: UUID | None = None,
    in_queue: bool = False,
    ended: bool = False,
    with_args: bool = False,
) -> list[JobRecord]:
    """Return the jobs that fit, newest first, without their results; `workspace_id` None means of all workspaces."""
    async with database.transaction() as connection:
        await connection.execute(SQL.plan_each_time)
        rows = await connection.fetch(
            SQL.find_jobs,
            workspace_id,
            _as_json(wanted),
            path,
            parent,
            in_queue,
            ended,
            page.before,
            with_args,
            page.limit,
            page.offset,
            page.oldest_first,
        )
    return [_record(row) for row in rows]


async def queue_size(connection: Any, workspace_id: str | None) -> QueueSize:
    """Return how many jobs wait in a workspace, or in all."""
    return QueueSize(**await connection.fetchrow(SQL.queue_size, workspace_id))


async def queue_longer_than(connection: Any, limit: int) -> bool:
    """Tell whether more jobs than this are queued, without counting them all."""
    return bool(await connection.fetchval(SQL.queue_longer_than, limit))


async def count_completed(
    connection: Any,
    workspace_id: str | None,
    *,
    within_s: float | None = None,
    statuses: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
) -> int:
    """Count jobs that have ended."""
    count: int = await connection.fetchval(SQL.count_completed, workspace_id, within_s, statuses, tags)
    return count


async def count_completed_by_tag(connection: Any, *, horizon_s: float, workspace_id: str | None) -> dict[str, int]:
    """Count jobs that ended within the last seconds, by tag."""
    rows = await connection.fetch(SQL.count_completed_by_tag, horizon_s, workspace_id)
    return {row["tag"]: row["count"] for row in rows}


async def position_at(connection: Any, workspace_id: str, time: datetime) -> int:
    """Return the place in the queue of a job that is due at a time, from 1."""
    place: int = await connection.fetchval(SQL.position_at, workspace_id, time)
    return place


async def scheduled_for(connection: Any, workspace_id: str, job_id: UUID) -> datetime | None:
    """Return when a job in the queue is due."""
    due: datetime | None = await connection.fetchval(SQL.scheduled_for, workspace_id, job_id)
    return due


async def started_at(connection: Any, workspace_id: str, job_ids: Sequence[UUID]) -> list[datetime | None]:
    """Return when each job started, in the order asked for."""
    return [row["started_at"] for row in await connection.fetch(SQL.started_at, workspace_id, job_ids)]


async def known(connection: Any, workspace_id: str | None, job_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the ids that are jobs of the workspace (None: of any)."""
    return {row["id"] for row in await connection.fetch(SQL.workspace_of_jobs, workspace_id, job_ids)}


async def root_of(connection: Any, workspace_id: str, job_id: UUID) -> UUID | None:
    """Return the job at the top of the tree this one is in; itself where it stands alone."""
    root: UUID | None = await connection.fetchval(SQL.root_of, workspace_id, job_id)
    return root


async def args_of(connection: Any, workspace_id: str, job_id: UUID) -> bytes | None:
    """Return the arguments of a job, JSON."""
    args: bytes | None = await connection.fetchval(SQL.args_of, workspace_id, job_id)
    return args


async def watch(connection: Any, workspace_id: str, job_id: UUID) -> Watch | None:
    """Return how a job stands right now."""
    row = await connection.fetchrow(SQL.watch, workspace_id, job_id)
    if row is None:
        return None
    return Watch(
        state=_state(row["state"]),
        awaited=bool(row["awaited"]),
        progress=row["progress"],
        memory_peak_kb=row["memory_peak_kb"],
        status=_status(row["status"]),
        started=bool(row["started"]),
    )


async def await_job(connection: Any, job_id: UUID) -> None:
    """Have a job's log, progress and end announced: somebody follows it."""
    await connection.execute(SQL.await_job, job_id)


async def erase(database: Database, workspace_id: str, job_id: UUID) -> bool:
    """Forget arguments, result and log of an ended job; False where it has not ended or is not there."""
    async with database.transaction() as connection:
        erased = await connection.fetchval(SQL.erase, workspace_id, job_id) is not None
        if erased:
            await doom(connection, [job_id])
    return erased


async def draining(connection: Any, workspace_id: str, job_id: UUID) -> bool | None:
    """Tell whether the worker of a running job takes no more jobs; None where the job is not in the queue."""
    answer: bool | None = await connection.fetchval(SQL.draining, workspace_id, job_id)
    return answer


async def store_progress(connection: Any, workspace_id: str, job_id: UUID, percent: int) -> bool:
    """Record how far a running job is; False where it does not run."""
    return await connection.fetchval(SQL.store_progress, workspace_id, job_id, percent) is not None


async def why(connection: Any, workspace_id: str, job_id: UUID) -> Facts | None:
    """Return all that explains why a job stands where it stands."""
    row = await connection.fetchrow(SQL.why, workspace_id, job_id, AHEAD_BOUND)
    if row is None:
        return None
    values = {
        **row,
        "state": _state(row["state"]),
        "status": _status(row["status"]),
        "live_tags": tuple(row["live_tags"]),
    }
    values.pop("id")
    return Facts(**values)


async def database_time(connection: Any) -> datetime:
    """Return the database's time."""
    return datetime.fromtimestamp(await clock_ms(connection) / 1000, UTC)


async def clock_ms(connection: Any) -> int:
    """Return the database's time in Unix milliseconds."""
    milliseconds: int = await connection.fetchval(SQL.database_clock)
    return milliseconds


def _as_json(wanted: JobFilter) -> bytes:
    """Write a filter the way `find_jobs` reads it."""
    fields = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not None}
    return _encode({name: "\x1f".join(value) if isinstance(value, list) else value for name, value in fields.items()})


def _record(row: Any) -> JobRecord:
    labels = row["labels"]
    return JobRecord(
        **{
            **row,
            "state": _state(row["state"]),
            "status": _status(row["status"]),
            "labels": None if labels is None else tuple(labels),
        }
    )


def _state(text: str | None) -> JobState | None:
    return None if text is None else JobState(text)


def _status(text: str | None) -> JobStatus | None:
    return None if text is None else JobStatus(text)
