"""Jobs: one by id, its result, lists and counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import MediaType, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, Raw

from millhand.core.errors import BadRequestError, NotFoundError
from millhand.core.job import JobStatus
from millhand.core.why import Why, explain
from millhand.server.payloads import (
    CompletedJob,
    Job,
    MaybeResult,
    QueueCount,
    QueuedJob,
    QueuePosition,
    TagCount,
    Timing,
    job_payload,
    job_payloads,
)
from millhand.server.query import JobQuery, job_query, read_id
from millhand.server.request import ApiRequest
from millhand.store import jobs, logs, results
from millhand.store.jobs import JobRecord

READ = {"action": "jobs:read"}
WRITE = {"action": "jobs:write"}
W = "/w/{workspace:str}"
LATEST_MS = 253_402_300_799_999  # the end of the year 9999


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job says it is."""

    percent: int
    flow_job_id: UUID | None = None


@get("/jobs_u/get/{job_id:str}", operation_id="getJob", opt=READ)
async def get_job(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    job_id: FromPath[str],
    no_logs: FromQuery[bool] = False,
    no_code: FromQuery[bool] = False,
) -> Job:
    """Return a job, queued or completed."""
    job = await jobs.get(request.database, workspace, read_id(job_id), with_code=not no_code)
    if job is None:
        raise _no_job(workspace, job_id)
    text = None if no_logs else await _log_at_hand(request, job.id)
    return job_payload(job, logs=text)


@get("/jobs_u/completed/get/{job_id:str}", operation_id="getCompletedJob", opt=READ)
async def get_completed_job(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> CompletedJob:
    """Return a job that has ended."""
    job = await jobs.get(request.database, workspace, read_id(job_id))
    if job is None or job.status is None:
        raise _not_ended(workspace, job_id, job)
    payload = job_payload(job, logs=await _log_at_hand(request, job.id))
    assert isinstance(payload, CompletedJob)
    return payload


@get("/jobs_u/completed/get_result/{job_id:str}", operation_id="getCompletedJobResult", opt=READ)
async def get_result(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Response[Any]:
    """Return the result of a job that has ended."""
    result = await results.result_of(request.database, workspace, read_id(job_id))
    if result is None:
        raise _not_ended(workspace, job_id, await jobs.get(request.database, workspace, read_id(job_id)))
    return Response(result.value, media_type=MediaType.JSON)


@get("/jobs_u/completed/get_result_maybe/{job_id:str}", operation_id="getCompletedJobResultMaybe", opt=READ)
async def get_result_maybe(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> MaybeResult:
    """Return the result of a job, or how far it is."""
    found = await results.result_maybe(request.database, workspace, read_id(job_id))
    if found is None:
        raise _no_job(workspace, job_id)
    result = found.result
    return MaybeResult(
        completed=result is not None,
        success=None if result is None else result.status in (JobStatus.SUCCESS, JobStatus.SKIPPED),
        result=Raw(b"null" if result is None else result.value),
        started=found.started,
    )


@get("/jobs_u/completed/get_timing/{job_id:str}", operation_id="getCompletedJobTiming", opt=READ)
async def get_timing(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Timing:
    """Return when a job that has ended was made, started, and how long it ran."""
    job = await _slim(request, workspace, job_id)
    if job.status is None:
        raise _not_ended(workspace, job_id, job)
    return Timing(
        created_at=job.created_at,
        started_at=job.started_at or UNSET,
        duration_ms=UNSET if job.duration_ms is None else job.duration_ms,
    )


@get("/jobs_u/get_root_job_id/{job_id:str}", operation_id="getRootJobId", opt=READ)
async def get_root_job_id(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Response[bytes]:
    """Return the id of the job at the top of the tree that a job is in."""
    root = await jobs.root_of(request.database, workspace, read_id(job_id))
    if root is None:
        raise _no_job(workspace, job_id)
    return Response(msgspec.json.encode(root), media_type=MediaType.JSON)


@get("/jobs_u/get_args/{job_id:str}", operation_id="getJobArgs", opt=READ)
async def get_args(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Response[bytes]:
    """Return the arguments of a job."""
    args = await jobs.args_of(request.database, workspace, read_id(job_id))
    if args is None:
        raise _no_job(workspace, job_id)
    return Response(args, media_type=MediaType.JSON)


@get("/jobs_u/why/{job_id:str}", operation_id="whyJob", opt=READ)
async def why(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Why:
    """Say in words and in data why a job has not started, or how it stands."""
    facts = await jobs.why(request.database, workspace, read_id(job_id))
    if facts is None:
        raise _no_job(workspace, job_id)
    return explain(read_id(job_id), facts)


@post("/jobs_u/queue/get_started_at_by_ids", status_code=200, operation_id="getStartedAtByIds", opt=READ)
async def get_started_at_by_ids(
    request: ApiRequest, workspace: FromPath[str], data: JSONBody[list[UUID]]
) -> list[datetime | None]:
    """Return when each of these jobs started, null for those that have not."""
    return await jobs.started_at(request.database, workspace, data)


@get("/jobs/list", operation_id="listJobs", opt=READ, dependencies={"wanted": Provide(job_query)})
async def list_jobs(request: ApiRequest, workspace: FromPath[str], wanted: NamedDependency[JobQuery]) -> list[Job]:
    """List jobs, queued and completed, newest first."""
    return job_payloads(await _find(request, workspace, wanted, in_queue=wanted.in_queue, ended=wanted.ended))


@get("/jobs/queue/list", operation_id="listQueue", opt=READ, dependencies={"wanted": Provide(job_query)})
async def list_queue(
    request: ApiRequest, workspace: FromPath[str], wanted: NamedDependency[JobQuery]
) -> list[QueuedJob]:
    """List jobs that have not ended, newest first."""
    return job_payloads(await _find(request, workspace, wanted, in_queue=True, ended=False))  # type: ignore[return-value]


@get("/jobs/completed/list", operation_id="listCompletedJobs", opt=READ, dependencies={"wanted": Provide(job_query)})
async def list_completed(
    request: ApiRequest, workspace: FromPath[str], wanted: NamedDependency[JobQuery]
) -> list[CompletedJob]:
    """List jobs that have ended, newest first."""
    return job_payloads(await _find(request, workspace, wanted, in_queue=False, ended=True))  # type: ignore[return-value]


@get(
    "/jobs/list_filtered_uuids",
    operation_id="listFilteredJobsUuids",
    opt=READ,
    dependencies={"wanted": Provide(job_query)},
)
async def list_filtered_uuids(
    request: ApiRequest, workspace: FromPath[str], wanted: NamedDependency[JobQuery]
) -> list[UUID]:
    """List the ids of the jobs that fit a filter."""
    found = await _find(request, workspace, wanted, in_queue=wanted.in_queue, ended=wanted.ended)
    return [job.id for job in found]


@get(
    "/jobs/queue/list_filtered_uuids",
    operation_id="listFilteredQueueUuids",
    opt=READ,
    dependencies={"wanted": Provide(job_query)},
)
async def list_filtered_queue_uuids(
    request: ApiRequest, workspace: FromPath[str], wanted: NamedDependency[JobQuery]
) -> list[UUID]:
    """List the ids of the unended jobs that fit a filter: a selection to cancel."""
    return [job.id for job in await _find(request, workspace, wanted, in_queue=True, ended=False)]


@get("/jobs/queue/count", operation_id="getQueueCount", opt=READ)
async def queue_count(
    *, request: ApiRequest, workspace: FromPath[str], all_workspaces: FromQuery[bool] = False
) -> QueueCount:
    """Count the jobs that wait for a worker."""
    where = request.workspace_or_all(workspace, all_workspaces=all_workspaces)
    size = await jobs.queue_size(request.database, where)
    return QueueCount(database_length=size.n_waiting, suspended=size.n_suspended)


@get("/jobs/completed/count", operation_id="getCompletedCount", opt=READ)
async def completed_count(request: ApiRequest, workspace: FromPath[str]) -> QueueCount:
    """Count the jobs that have ended."""
    return QueueCount(database_length=await jobs.count_completed(request.database, workspace))


@get("/jobs/completed/count_jobs", operation_id="countCompletedJobs", opt=READ)
async def count_completed_jobs(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    completed_after_s_ago: FromQuery[float | None] = None,
    success: FromQuery[bool | None] = None,
    tags: FromQuery[str | None] = None,
    all_workspaces: FromQuery[bool] = False,
) -> int:
    """Count the jobs that have ended, by time, outcome and tag."""
    statuses = None if success is None else ["success", "skipped"] if success else ["failure", "canceled"]
    return await jobs.count_completed(
        request.database,
        request.workspace_or_all(workspace, all_workspaces=all_workspaces),
        within_s=completed_after_s_ago,
        statuses=statuses,
        tags=tags.split(",") if tags else None,
    )


@post("/jobs/completed/delete/{job_id:str}", status_code=200, operation_id="deleteCompletedJob", opt=WRITE)
async def delete_completed(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> CompletedJob:
    """Erase arguments, result and log of a job that has ended; that it ran stays known."""
    request.require_admin()
    await jobs.erase(request.database, workspace, read_id(job_id))
    job = await jobs.get(request.database, workspace, read_id(job_id))
    if job is None or job.status is None:
        raise _not_ended(workspace, job_id, job)
    payload = job_payload(job)
    assert isinstance(payload, CompletedJob)
    return payload


@get("/jobs/queue/position/{due_ms:int}", operation_id="getQueuePosition", opt=READ)
async def queue_position(request: ApiRequest, workspace: FromPath[str], due_ms: FromPath[int]) -> QueuePosition:
    """Return the place in the queue of a job that is due at a time, in Unix milliseconds."""
    if not 0 <= due_ms <= LATEST_MS:
        raise BadRequestError(f"{due_ms} is not a time in Unix milliseconds")
    due = datetime.fromtimestamp(due_ms / 1000, UTC)
    return QueuePosition(position=await jobs.position_at(request.database, workspace, due))


@get("/jobs/queue/scheduled_for/{job_id:str}", operation_id="getScheduledFor", opt=READ)
async def get_scheduled_for(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> int:
    """Return when a job in the queue is due, in Unix milliseconds."""
    due = await jobs.scheduled_for(request.database, workspace, read_id(job_id))
    if due is None:
        raise NotFoundError(f"there is no job {job_id} in the queue of workspace {workspace}")
    return round(due.timestamp() * 1000)


@get("/jobs/worker_is_draining/{job_id:str}", operation_id="workerIsDraining", opt=READ)
async def worker_is_draining(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> bool:
    """Tell whether the worker of a running job takes no more jobs: time to come to an end."""
    draining = await jobs.draining(request.database, workspace, read_id(job_id))
    if draining is None and not await jobs.known(request.database, workspace, [read_id(job_id)]):
        raise _no_job(workspace, job_id)
    return bool(draining)


@post(
    "/job_metrics/set_progress/{job_id:str}",
    status_code=200,
    media_type=MediaType.TEXT,
    operation_id="setJobProgress",
    opt=WRITE,
)
async def set_progress(
    request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str], data: JSONBody[Progress]
) -> str:
    """Record how far a running job is, 0 to 100."""
    if not 0 <= data.percent <= 100:  # noqa: PLR2004 - percent
        raise BadRequestError(f"percent is {data.percent}; it must be between 0 and 100")
    if not await jobs.store_progress(request.database, workspace, read_id(job_id), data.percent):
        raise NotFoundError(f"job {job_id} does not run in workspace {workspace}")
    request.services.notifier.grew([read_id(job_id)])
    return ""


@get("/job_metrics/get_progress/{job_id:str}", operation_id="getJobProgress", opt=READ)
async def get_progress(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> int | None:
    """Return how far a job is, 0 to 100, or null where it has not said so."""
    watch = await jobs.watch(request.database, workspace, read_id(job_id))
    if watch is None:
        raise _no_job(workspace, job_id)
    return watch.progress


@get("/jobs/db_clock", operation_id="getDbClock", opt=READ)
async def db_clock(request: ApiRequest) -> int:
    """Return the database's time in Unix milliseconds."""
    return await jobs.clock_ms(request.database)


@get("/jobs/completed/count_by_tag", operation_id="countJobsByTag", opt=READ)
async def count_by_tag(
    request: ApiRequest, horizon_secs: FromQuery[float] = 3600, workspace_id: FromQuery[str | None] = None
) -> list[TagCount]:
    """Count the jobs that ended within the last seconds, by tag."""
    if workspace_id is not None:
        await request.services.auth.enter(request.identity, workspace_id)
    else:
        request.require_super_admin()
    counts = await jobs.count_completed_by_tag(request.database, horizon_s=horizon_secs, workspace_id=workspace_id)
    return [TagCount(tag=tag, count=count) for tag, count in counts.items()]


async def _log_at_hand(request: ApiRequest, job_id: UUID) -> str:
    """Return a job's log as far as the database has it: a job is shown though object storage is away, and soon."""
    text, start = await logs.read_kept(request.database, job_id)
    if not start:
        return text
    return f"[the first {start} characters of this log are in object storage; get_logs has all of it]\n{text}"


async def _find(
    request: ApiRequest, workspace: str, wanted: NamedDependency[JobQuery], *, in_queue: bool, ended: bool
) -> list[JobRecord]:
    return await jobs.find(
        request.database,
        wanted.wanted,
        wanted.page,
        workspace_id=request.workspace_or_all(workspace, all_workspaces=wanted.all_workspaces),
        path=wanted.path,
        parent=wanted.parent,
        in_queue=in_queue,
        ended=ended,
        with_args=wanted.with_args,
    )


async def _slim(request: ApiRequest, workspace: str, job_id: str) -> JobRecord:
    job = await jobs.get(
        request.database, workspace, read_id(job_id), with_args=False, with_code=False, with_result=False
    )
    if job is None:
        raise _no_job(workspace, job_id)
    return job


def _no_job(workspace: str, job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id} in workspace {workspace}")


def _not_ended(workspace: str, job_id: str, job: JobRecord | None) -> NotFoundError:
    return (
        _no_job(workspace, job_id) if job is None else NotFoundError(f"job {job_id} has not ended; it is {job.state}")
    )


_handlers: list[Any] = [
    get_job, get_completed_job, get_result, get_result_maybe, get_timing, get_root_job_id, get_args, why,
    get_started_at_by_ids, list_jobs, list_queue, list_completed, list_filtered_uuids, list_filtered_queue_uuids,
    queue_count, completed_count, count_completed_jobs, delete_completed, queue_position, get_scheduled_for,
    worker_is_draining, set_progress, get_progress,
]  # fmt: skip
router = Router("/", route_handlers=[Router(W, route_handlers=_handlers), db_clock, count_by_tag], tags=["jobs"])
