"""Following jobs: logs, and what is new, once or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from litestar import MediaType, Response, Router, get
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from millhand.core.errors import BadRequestError, NotFoundError
from millhand.server.follow import PART_UNITS, Follower, Position
from millhand.server.payloads import JobUpdate
from millhand.server.query import read_id
from millhand.server.request import ApiRequest, Services
from millhand.store import jobs, logs

READ = {"action": "jobs:read"}
TAIL_UNITS = 10_000  # UTF-16 units of the end of a log
_MAX_OFFSET = 2**53


@get("/getupdate/{job_id:str}", operation_id="getJobUpdates", opt=READ)
async def get_update(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    job_id: FromPath[str],
    running: FromQuery[bool | None] = None,
    log_offset: FromQuery[int | None] = None,
    stream_offset: FromQuery[int] = 0,
    get_progress: FromQuery[bool] = False,
    no_logs: FromQuery[bool] = False,
) -> JobUpdate:
    """Return what is new about a job, waiting up to 0.4 s for it; its end after all of a log read by log_offset."""
    position = Position(
        running=running,
        log_offset=_offset("log_offset", log_offset or 0),
        stream_offset=_offset("stream_offset", stream_offset),
        with_logs=not no_logs,
        with_progress=get_progress,
        by_offset=log_offset is not None,
    )
    follower = _follower(request, workspace, job_id, position)
    with request.services.hub.watching(read_id(job_id)) as watcher:
        return await follower.next_update(watcher)


@get("/getupdate_sse/{job_id:str}", operation_id="getJobUpdatesSse", opt=READ)
async def get_update_sse(
    *,
    request: ApiRequest,
    workspace: FromPath[str],
    job_id: FromPath[str],
    running: FromQuery[bool | None] = None,
    log_offset: FromQuery[int] = 0,
    stream_offset: FromQuery[int] = 0,
    get_progress: FromQuery[bool] = False,
    only_result: FromQuery[bool] = False,
    no_logs: FromQuery[bool] = False,
) -> Stream:
    """Stream what is new about a job as server-sent events until it ends, or for a minute."""
    position = Position(
        running=running,
        log_offset=_offset("log_offset", log_offset),
        stream_offset=_offset("stream_offset", stream_offset),
        with_logs=not no_logs,
        with_progress=get_progress,
    )
    follower = _follower(request, workspace, job_id, position)
    services = request.services

    def events() -> AsyncIterator[bytes]:
        return follower.events(services.hub, lasting_s=services.settings.sse_stream_s, only_result=only_result)

    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return Stream(events(), media_type="text/event-stream", headers=headers)


@get("/get_logs/{job_id:str}", media_type=MediaType.TEXT, operation_id="getJobLogs", opt=READ)
async def get_logs(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Response[str]:
    """Return the log of a job; a large one piece by piece."""
    return await _log(request, workspace, job_id, offset=0)


@get(
    "/get_completed_logs_tail/{job_id:str}", media_type=MediaType.TEXT, operation_id="getCompletedJobLogsTail", opt=READ
)
async def get_logs_tail(request: ApiRequest, workspace: FromPath[str], job_id: FromPath[str]) -> Response[str]:
    """Return the end of the log of a job."""
    length = await logs.length(request.database, read_id(job_id))
    return await _log(request, workspace, job_id, offset=max(length - TAIL_UNITS, 0))


async def _log(request: ApiRequest, workspace: str, job_id: str, *, offset: int) -> Response[Any]:
    if not await jobs.known(request.database, workspace, [read_id(job_id)]):
        raise NotFoundError(f"there is no job {job_id} in workspace {workspace}")
    parts = _parts(request.services, read_id(job_id), offset)
    first = await anext(parts)  # before the answer begins: errors of object storage can still be its status
    if logs.utf16_length(first) < PART_UNITS:
        return Response(first, media_type=MediaType.TEXT)
    return Stream(_from(first, parts), media_type=MediaType.TEXT)


async def _parts(services: Services, job_id: UUID, offset: int) -> AsyncIterator[str]:
    """Yield a log from an offset on, at least one piece, none of them larger than memory has room for."""
    while True:
        text, reached = await logs.read(
            services.database, job_id, offset=offset, at_most=PART_UNITS, objects=services.objects
        )
        yield text
        if reached - offset < PART_UNITS:
            return
        offset = reached


async def _from(first: str, others: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for text in others:
        yield text


def _follower(request: ApiRequest, workspace: str, job_id: str, position: Position) -> Follower:
    services = request.services
    return Follower(
        services.database, services.objects, workspace_id=workspace, job_id=read_id(job_id), position=position
    )


def _offset(name: str, value: int) -> int:
    if not 0 <= value <= _MAX_OFFSET:
        raise BadRequestError(f"{name} is {value}; it must be 0 or more")
    return value


_handlers: list[Any] = [get_update, get_update_sse, get_logs, get_logs_tail]
router = Router("/w/{workspace:str}/jobs_u", route_handlers=_handlers, tags=["jobs"])
